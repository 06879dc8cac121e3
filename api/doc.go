// Package api holds the table of kinds: everything that makes one kind of object differ from another
// (names, scope, Go type, defaults, validation, subresources, printer columns) as one row of data.
//
// Invariant: no code outside this package and its group folders is written for one kind where a row could
// say it. A row never changes once it is in a table, so rows are shared between all components of a process.
//
// Any package may import api; api imports nothing of this module but its own group folders.
package api
