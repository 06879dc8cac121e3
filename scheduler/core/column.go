package core

import (
	corev1 "k8s.io/api/core/v1"
)

// column is one node label for all nodes: dense numbers for its values, so that selectors and topologies are judged by
// value and looked up by index. Columns are made when a rule first asks for a key, and then kept up with the nodes.
type column struct {
	key    string
	ids    map[string]int32
	values []string // by id; ids are never reused while the column lives
	byNode []int32  // by node index; -1: the node has no such label, or is none
}

// nameColumn is the key of the column that holds nodes' names (matchFields may ask for those).
const nameColumn = "\x00name"

// none is the id of nodes without a value.
const none = int32(-1)

func (c *Cluster) column(key string) *column {
	col, ok := c.columns[key]
	if !ok {
		col = &column{key: key, ids: map[string]int32{}}
		for _, n := range c.nodes {
			if n != nil {
				col.set(n)
			}
		}
		c.columns[key] = col
	}
	return col
}

// set takes a node's label as it is now.
func (col *column) set(n *node) {
	for len(col.byNode) <= n.index {
		col.byNode = append(col.byNode, none)
	}
	col.byNode[n.index] = none
	if n.obj == nil {
		return
	}
	value, ok := n.obj.Labels[col.key]
	if col.key == nameColumn {
		value, ok = n.obj.Name, true
	}
	if !ok {
		return
	}
	id, ok := col.ids[value]
	if !ok {
		id = int32(len(col.values))
		col.ids[value] = id
		col.values = append(col.values, value)
	}
	col.byNode[n.index] = id
}

// isHostname says that every node has its own value, as a rule.
func (col *column) isHostname() bool { return col.key == corev1.LabelHostname }
