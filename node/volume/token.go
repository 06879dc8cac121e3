package volume

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// tokenState is kept beside the volume so that a restart of the agent does not ask for new tokens.
type tokenState struct {
	Token   string    `json:"token"`
	Refresh time.Time `json:"refresh"`
}

// token gives a service account token, the one that is there already while it is young. It is due for a new one after
// four fifths of its life, or a day.
func (m *Manager) token(ctx context.Context, pod *corev1.Pod, volume string, p *corev1.ServiceAccountTokenProjection, def *int32) (map[string]file, time.Time, error) {
	keep := filepath.Join(m.PodDir(string(pod.UID)), "tokens", volume+"~"+filepath.Base(p.Path)+"~"+filepath.Base(p.Audience))
	var st tokenState
	now := m.Src.Now()
	if b, err := os.ReadFile(keep); err != nil || json.Unmarshal(b, &st) != nil || !now.Before(st.Refresh) {
		token, issued, expires, err := m.Src.Token(ctx, pod, p)
		if err != nil {
			return nil, time.Time{}, err
		}
		st = tokenState{Token: token, Refresh: now.Add(min(expires.Sub(issued)*4/5, 24*time.Hour))}
		b, err := json.Marshal(st)
		if err != nil {
			return nil, time.Time{}, err
		}
		if err := os.MkdirAll(filepath.Dir(keep), 0o700); err != nil {
			return nil, time.Time{}, err
		}
		if err := os.WriteFile(keep, b, 0o600); err != nil {
			return nil, time.Time{}, err
		}
	}
	f := file{data: []byte(st.Token), mode: mode(nil, def), uid: runAs(pod)}
	if f.uid != nil || fsGroup(pod) != nil {
		f.mode = 0o600
	}
	return map[string]file{p.Path: f}, st.Refresh, nil
}
