package reconcile

// Input is one kind of change that makes keys due.
type Input struct{}
