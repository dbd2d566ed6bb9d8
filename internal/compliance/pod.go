package compliance

// podControls are about how pods run.
var podControls []Control
