// Package crd serves custom resources: it turns every CustomResourceDefinition into rows of the table, keeps its status
// and its finalizer, and adds its schemas to the OpenAPI documents.
//
// Invariant: a definition's rows are replaced together, never changed; a definition is Established only when its rows are
// in the table and its keys registered with the store. Schemas are compiled when first needed, so that a hundred unused
// definitions cost a hundred structs. A request is defaulted, pruned and judged in the version that it speaks, and
// converted to the storage version last; with a conversion webhook the store's cache holds objects as they were written.
//
// Only server imports crd.
package crd
