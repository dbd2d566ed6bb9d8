package compliance

// secretControls are about the values that a server gets.
var secretControls []Control
