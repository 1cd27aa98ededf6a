package batch

// Pause is how long a part of the journal may take to come together.
var Pause = pause
