// Package image sees that a container's image is on the node, pulling it if its policy says so.
//
// Invariant: what is on the node is known by asking the runtime each time; nothing is remembered but how many pulls
// are in flight and when images were last used.
//
// Only node imports image.
package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/node/cri"
	"github.com/skiff-sh/skiff/node/spec"
)

// Error is why an image is not there; Reason is what a container's status shows.
type Error struct{ Reason, Message string }

func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Puller pulls images, a bounded number at once.
type Puller struct {
	images runtimeapi.ImageServiceClient
	slots  chan struct{}
	now    func() time.Time
}

// NewPuller makes a puller of at most n pulls at once.
func NewPuller(images runtimeapi.ImageServiceClient, n int, now func() time.Time) *Puller {
	return &Puller{images: images, slots: make(chan struct{}, n), now: now}
}

// Eventf tells the user what is done about a container's image.
type Eventf func(eventType, reason, format string, args ...any)

// Ensure makes the image present and returns what containers are to be made from.
func (p *Puller) Ensure(ctx context.Context, image string, policy corev1.PullPolicy, secrets []*corev1.Secret, sandbox *runtimeapi.PodSandboxConfig, handler string, event Eventf) (string, error) {
	ref, err := Normalize(image)
	if err != nil {
		e := &Error{"InvalidImageName", fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", image, image, err)}
		event(corev1.EventTypeWarning, "InspectFailed", "%s", e.Message)
		return "", e
	}
	is := &runtimeapi.ImageSpec{Image: ref, RuntimeHandler: handler, UserSpecifiedImage: image}
	st, err := p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: is})
	if err != nil {
		e := &Error{"ImageInspectError", fmt.Sprintf("Failed to inspect image %q: %v", image, cri.Message(err))}
		event(corev1.EventTypeWarning, "InspectFailed", "%s", e.Message)
		return "", e
	}
	switch {
	case policy == corev1.PullNever && st.Image == nil:
		e := &Error{"ErrImageNeverPull", fmt.Sprintf("Container image %q is not present with pull policy of Never", image)}
		event(corev1.EventTypeWarning, "ErrImageNeverPull", "%s", e.Message)
		return "", e
	case st.Image != nil && policy != corev1.PullAlways:
		event(corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine and can be accessed by the pod", image)
		return st.Image.Id, nil
	}
	return p.pull(ctx, is, image, secrets, sandbox, event)
}

func (p *Puller) pull(ctx context.Context, is *runtimeapi.ImageSpec, image string, secrets []*corev1.Secret, sandbox *runtimeapi.PodSandboxConfig, event Eventf) (string, error) {
	asked := p.now()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	event(corev1.EventTypeNormal, "Pulling", "Pulling image %q", image)
	began := p.now()
	var errs []error
	for _, auth := range credentials(is.Image, secrets) {
		r, err := p.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: is, Auth: auth, SandboxConfig: sandbox})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		size := uint64(0)
		if st, err := p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: r.ImageRef}}); err == nil {
			size = st.GetImage().GetSize()
		}
		now := p.now()
		event(corev1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", image,
			now.Sub(began).Truncate(time.Millisecond), now.Sub(asked).Truncate(time.Millisecond), size)
		return r.ImageRef, nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	e := &Error{"ErrImagePull", fmt.Sprintf("failed to pull and unpack image %q", image)}
	if err := errors.Join(errs...); err != nil {
		e.Message = cri.Message(errs[0])
		if status.Code(errs[0]) == codes.Unavailable {
			e.Reason = "RegistryUnavailable"
		} else {
			e.Message = fmt.Sprintf("rpc error: code = %v desc = %s", status.Code(errs[0]), e.Message)
		}
	}
	event(corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %s", image, e.Message)
	event(corev1.EventTypeWarning, "Failed", "Error: %s", e.Reason)
	return "", e
}

// Present gives the ID of an image that is on the node.
func (p *Puller) Present(ctx context.Context, image string) (string, error) {
	ref, err := Normalize(image)
	if err != nil {
		return "", err
	}
	st, err := p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return "", err
	}
	if st.Image == nil {
		return "", fmt.Errorf("image %q is not present", image)
	}
	return st.Image.Id, nil
}

// User is whom an image runs as.
func (p *Puller) User(ctx context.Context, ref string) (spec.ImageUser, error) {
	st, err := p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return spec.ImageUser{}, err
	}
	u := spec.ImageUser{Name: st.GetImage().GetUsername()}
	if id := st.GetImage().GetUid(); id != nil {
		u.UID = &id.Value
	}
	if u.UID == nil && u.Name == "" {
		root := int64(0)
		u.UID = &root
	}
	return u, nil
}

// Normalize gives an image name its default registry and tag.
func Normalize(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", err
	}
	return reference.TagNameOnly(named).String(), nil
}

type authEntry struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Auth     string `json:"auth"`
	Token    string `json:"identitytoken"`
	Registry string `json:"registrytoken"`
}

// credentials lists what to try for an image, most fitting first; without any that fits, an anonymous pull.
func credentials(image string, secrets []*corev1.Secret) []*runtimeapi.AuthConfig {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return []*runtimeapi.AuthConfig{nil}
	}
	full := named.Name()
	type match struct {
		length int
		auth   *runtimeapi.AuthConfig
	}
	var found []match
	for _, s := range secrets {
		for host, e := range entries(s) {
			if n := fits(host, full); n > 0 {
				found = append(found, match{n, e})
			}
		}
	}
	var out []*runtimeapi.AuthConfig
	for len(found) > 0 { // few: pick the longest each time
		best := 0
		for i := range found {
			if found[i].length > found[best].length {
				best = i
			}
		}
		out = append(out, found[best].auth)
		found = append(found[:best], found[best+1:]...)
	}
	if len(out) == 0 {
		return []*runtimeapi.AuthConfig{nil}
	}
	return out
}

// fits says how much of an image's name a registry entry covers; 0: it does not.
func fits(entry, full string) int {
	entry = strings.TrimPrefix(strings.TrimPrefix(entry, "https://"), "http://")
	entry = strings.TrimSuffix(entry, "/")
	for _, v := range []string{"/v1", "/v2"} {
		entry = strings.TrimSuffix(entry, v)
	}
	if entry == "index.docker.io" {
		entry = "docker.io"
	}
	host, path, _ := strings.Cut(entry, "/")
	imageHost, imagePath, _ := strings.Cut(full, "/")
	hs, is := strings.Split(host, "."), strings.Split(imageHost, ".")
	if len(hs) != len(is) {
		return 0
	}
	for i := range hs {
		if hs[i] != is[i] && hs[i] != "*" {
			return 0
		}
	}
	if path != "" && imagePath != path && !strings.HasPrefix(imagePath, path+"/") {
		return 0
	}
	return len(entry)
}

func entries(s *corev1.Secret) map[string]*runtimeapi.AuthConfig {
	all := map[string]authEntry{}
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var f struct {
			Auths map[string]authEntry `json:"auths"`
		}
		if json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &f) == nil {
			all = f.Auths
		}
	case corev1.SecretTypeDockercfg:
		_ = json.Unmarshal(s.Data[corev1.DockerConfigKey], &all) // what is no JSON holds no credentials
	}
	out := map[string]*runtimeapi.AuthConfig{}
	for host, e := range all {
		a := &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.Token, RegistryToken: e.Registry}
		if b, err := base64.StdEncoding.DecodeString(e.Auth); err == nil && e.Auth != "" {
			if u, p, ok := strings.Cut(string(b), ":"); ok {
				a.Username, a.Password = u, p
			}
		}
		out[host] = a
	}
	return out
}
