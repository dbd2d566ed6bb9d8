package compliance

// accessControls are about who may use the server, and what its account may do.
var accessControls []Control
