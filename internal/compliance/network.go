package compliance

// networkControls are about what a server may reach, and who may reach it.
var networkControls []Control
