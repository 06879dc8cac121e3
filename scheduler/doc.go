// Package scheduler finds a node for every pod.
//
// Data flow: cache events -> state (dense node indexes, counters by domain) -> decide (pure) -> bind through the API.
// One goroutine owns the state and decides; binding runs beside it, after the state has assumed its outcome.
//
// Invariants: deciding reads no clock, no cache and no API, so the same state and pod give the same decision. The chosen
// node has the best score of all feasible nodes: nodes are never sampled. Equal pods share one class, whose verdict on a
// node is judged anew only after that node changed, so a decision costs in proportion to what changed. Every refusal has
// a reason in upstream's words.
//
// A pod that fits nowhere may have pods of lower priority evicted (preempt.go decides whom, evict.go does it). It is then
// nominated to their node: no pod of its own or a lower priority takes the room that they leave.
//
// Only daemon may import scheduler; it meets the other components in the API alone and also runs against an upstream
// API server.
package scheduler
