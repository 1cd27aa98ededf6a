package steps

// MainInput is the input of the table that a plan is for; those of tables to join have names of
// their own.
const MainInput = "input"

// Task is what the task of a job that needs no code is told. Folders are below the one that holds
// all of the task's.
type Task struct {
	Plan    *Plan             `json:"plan,omitempty"`
	Profile bool              `json:"profile,omitempty"`
	Inputs  map[string]string `json:"inputs"` // folders by name
	Output  string            `json:"output"`
	Workers int               `json:"workers"` // batches that are worked on at once
}
