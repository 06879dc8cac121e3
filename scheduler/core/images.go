package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Images count for a score between these two sizes, in bytes; the upper for each container.
const (
	minImage = 23 << 20
	maxImage = 1000 << 20
)

// imagesOf are the images of a pod, as nodes name them, and how many containers it has.
func imagesOf(p *corev1.Pod) (names []string, containers int) {
	for i := range p.Spec.InitContainers {
		names = append(names, normalImage(p.Spec.InitContainers[i].Image))
	}
	for i := range p.Spec.Containers {
		names = append(names, normalImage(p.Spec.Containers[i].Image))
	}
	containers = len(names)
	for i := range p.Spec.Volumes {
		if image := p.Spec.Volumes[i].Image; image != nil {
			names = append(names, normalImage(image.Reference))
		}
	}
	return names, containers
}

// normalImage is an image's name with its tag.
func normalImage(name string) string {
	if strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
		return name + ":latest"
	}
	return name
}

// imageScore prefers nodes that have the pod's images, the more so the more nodes have them.
func (c *Cluster) imageScore(names []string, containers int, n *node) int64 {
	sum := int64(0)
	for _, name := range names {
		if size, ok := n.images[name]; ok && size > 0 {
			sum += int64(float64(size) * (float64(c.imageNodes[name]) / float64(max(c.ready, 1))))
		}
	}
	limit := int64(maxImage) * int64(containers)
	if limit <= minImage {
		return 0
	}
	return MaxScore * (min(max(sum, minImage), limit) - minImage) / (limit - minImage)
}

// countImages keeps how many nodes have an image. Shapes that care about one that moved judge all nodes anew.
func (c *Cluster) countImages(old, obj *corev1.Node) {
	moved := map[string]int{}
	count := func(n *corev1.Node, by int) {
		if n == nil {
			return
		}
		for _, image := range n.Status.Images {
			for _, name := range image.Names {
				moved[name] += by
			}
		}
	}
	count(old, -1)
	count(obj, 1)
	for name, by := range moved {
		if by == 0 {
			delete(moved, name)
		} else if c.imageNodes[name] += by; c.imageNodes[name] == 0 {
			delete(c.imageNodes, name)
		}
	}
	fewer := (old == nil) != (obj == nil) // how many nodes there are changed
	for _, s := range c.shapes {
		for _, name := range s.images {
			if moved[name] != 0 || fewer && c.imageNodes[name] > 0 {
				s.cursor = -1
			}
		}
	}
}
