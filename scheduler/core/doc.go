// Package core decides which node a pod goes to, whom it may evict, and why not elsewhere. It is the scheduler without a
// clock, a goroutine or input and output: a Cluster is told about objects with Set and Delete, and asked with Decide.
//
// Data flow: objects -> Cluster (dense node indexes, a column for each node label that rules ask for, tallies of pods by
// topology domain) -> shapes (what equal pods make of each node by itself) -> Decide.
//
// Invariants: the same objects and pod give the same decision. The chosen node has the best score of all feasible nodes;
// nodes are never sampled. Equal pods share one shape, whose verdict on a node is judged anew only after that node
// changed, so a decision costs in proportion to what changed, plus a few passes over arrays. Every refusal has a reason in
// upstream's words.
//
// A Cluster belongs to one goroutine. The scheduler's loop holds one; "skiff explain" fills one from lists. Only
// scheduler and ctl import core, and it imports api alone.
package core
