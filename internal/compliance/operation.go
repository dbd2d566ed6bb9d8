package compliance

// operationControls are about what is done with the server and around it.
var operationControls []Control
