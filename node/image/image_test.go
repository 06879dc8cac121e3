package image

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{"nginx": "docker.io/library/nginx:latest", "a/b:1": "docker.io/a/b:1", "r.example.com:5000/x": "r.example.com:5000/x:latest", "Not A Name": ""} {
		if got, err := Normalize(in); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestCredentials(t *testing.T) {
	s := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(
		`{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},"*.example.com":{"username":"wild","password":"x"},"r.example.com/team":{"username":"team","password":"x"}}}`)}}
	users := func(image string) string {
		out := ""
		for _, a := range credentials(image, []*corev1.Secret{s}) {
			if a == nil {
				out += "anonymous "
			} else {
				out += a.Username + ":" + a.Password + " "
			}
		}
		return out
	}
	for image, want := range map[string]string{"nginx": "hub:pw ", "r.example.com/team/app": "team:x wild:x ", "r.example.com/teamwork": "wild:x ", "a.b.example.com/x": "anonymous ", "quay.io/x": "anonymous "} {
		if got := users(image); got != want {
			t.Errorf("%s: %q", image, got)
		}
	}
}
