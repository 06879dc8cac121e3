// Package audit tells what was asked of the API server, by whom, and what came of it: upstream's audit policy, events,
// stages and annotations (audit.k8s.io/v1), written as JSON lines to a file or sent in batches to a webhook.
//
// Invariants: which rule of the policy a request falls under is a pure function of the two. A request that no rule asks
// about costs that decision and nothing else, and a server without an Auditor costs nothing at all. A Record belongs to one request; an
// event does not change after a back end was given it.
//
// Only server, its admission folders and daemon import audit.
package audit
