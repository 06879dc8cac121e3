package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// indexes is a set of completion indexes; its text form is "1,3-5,7".
type indexes map[int]bool

// parseIndexes reads the text form and ignores what is malformed or not below limit: it comes from a status that
// anybody with the right may have written.
func parseIndexes(s string, limit int) indexes {
	set := indexes{}
	if s == "" {
		return set
	}
	for _, part := range strings.Split(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil || a < 0 {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		for i := a; i <= b && i < limit; i++ {
			set[i] = true
		}
	}
	return set
}

func (s indexes) String() string {
	list := make([]int, 0, len(s))
	for i := range s {
		list = append(list, i)
	}
	slices.Sort(list)
	var parts []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		switch j - i {
		case 0:
			parts = append(parts, strconv.Itoa(list[i]))
		case 1:
			parts = append(parts, strconv.Itoa(list[i]), strconv.Itoa(list[j]))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", list[i], list[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// indexOf is the pod's completion index; false if it has none below limit.
func indexOf(p *corev1.Pod, limit int) (int, bool) {
	i, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	return i, err == nil && i >= 0 && i < limit
}
