package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var errNone = errors.New("none")

func manager(t *testing.T) (*Manager, *corev1.ConfigMap) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cm := &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}}
	tokens := 0
	m := &Manager{Root: t.TempDir(), Src: Sources{
		ConfigMap: func(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
			if name != "cm" {
				return nil, errNone
			}
			return cm, nil
		},
		Secret: func(context.Context, string, string) (*corev1.Secret, error) {
			return &corev1.Secret{Data: map[string][]byte{"s": []byte("x")}}, nil
		},
		Token: func(context.Context, *corev1.Pod, *corev1.ServiceAccountTokenProjection) (string, time.Time, time.Time, error) {
			tokens++
			return strings.Repeat("t", tokens), time.Now(), time.Now().Add(time.Hour), nil
		},
		NotFound: func(err error) bool { return errors.Is(err, errNone) }, Now: time.Now}}
	t.Cleanup(func() {
		for _, uid := range []string{"u"} {
			if err := m.Purge(uid); err != nil {
				t.Error(err)
			}
		}
		if left, err := mountsUnder(m.Root); err != nil || len(left) > 0 {
			t.Errorf("mounts are left: %v, %v", left, err)
		}
	})
	return m, cm
}

func pod(vs ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{Volumes: vs}}
}

func mount(t *testing.T, m *Manager, p *corev1.Pod) string {
	t.Helper()
	if _, err := m.Mount(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dir, err := m.Path(p, p.Spec.Volumes[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s holds %q, %v; want %q", path, b, err, want)
	}
}

func TestConfigMapFollowsItsObject(t *testing.T) {
	m, cm := manager(t)
	mode := int32(0o400)
	p := pod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, DefaultMode: &mode}}})
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(7))}
	dir := mount(t, m, p)
	read(t, dir+"/a", "1")
	fi, err := os.Stat(dir + "/a")
	if err != nil || fi.Mode().Perm() != 0o440 {
		t.Errorf("the mode is %v, %v", fi.Mode(), err)
	}
	link, _ := os.Readlink(dir + "/..data")
	mount(t, m, p)
	if again, _ := os.Readlink(dir + "/..data"); again != link {
		t.Error("a second mount wrote everything anew though nothing changed")
	}
	cm.Data = map[string]string{"a": "new", "c": "3"}
	mount(t, m, p)
	read(t, dir+"/a", "new")
	read(t, dir+"/c", "3")
	if _, err := os.Lstat(dir + "/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key that is gone is still shown")
	}
}

func TestProjected(t *testing.T) {
	m, _ := manager(t)
	p := pod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{Secret: &corev1.SecretProjection{Items: []corev1.KeyToPath{{Key: "s", Path: "deep/er"}}}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}, Optional: new(true)}},
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}}})
	dir := mount(t, m, p)
	read(t, dir+"/deep/er", "x")
	read(t, dir+"/token", "t")
	if !isMountPoint(dir) {
		t.Error("a token is not kept in memory")
	}
	mount(t, m, p)
	read(t, dir+"/token", "t")
	m.Src.Now = func() time.Time { return time.Now().Add(50 * time.Minute) }
	mount(t, m, p)
	read(t, dir+"/token", "tt")
}

func TestEmptyDir(t *testing.T) {
	m, _ := manager(t)
	size := resource.MustParse("1Mi")
	p := pod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}}})
	dir := mount(t, m, p)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC || int64(st.Blocks)*st.Bsize != size.Value() {
		t.Errorf("%+v, %v", st, err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o777 {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestSubPathStaysInside(t *testing.T) {
	m, _ := manager(t)
	p := pod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	dir := mount(t, m, p)
	at, err := m.SubPath("u", dir, "v", "c", 0, "x/y")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at+"/f", []byte("here"), 0o644); err != nil {
		t.Fatal(err)
	}
	read(t, dir+"/x/y/f", "here")
	if err := os.Symlink("/etc", dir+"/out"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x", dir+"/in"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"out", "out/passwd", "out/new", "../x", "/etc", "x/../../.."} {
		if at, err := m.SubPath("u", dir, "v", "c", 1, bad); err == nil {
			t.Errorf("%q reached %s", bad, at)
		}
	}
	if _, err := m.SubPath("u", dir, "v", "c", 2, "in/y/f"); err != nil {
		t.Error(err)
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		typ  corev1.HostPathType
		ok   bool
	}{
		{dir, corev1.HostPathDirectory, true}, {file, corev1.HostPathDirectory, false}, {file, corev1.HostPathFile, true}, {dir, corev1.HostPathFile, false},
		{dir + "/none", corev1.HostPathFile, false}, {dir + "/d/e", corev1.HostPathDirectoryOrCreate, true}, {dir + "/g", corev1.HostPathFileOrCreate, true},
		{file, corev1.HostPathSocket, false}, {"/dev/null", corev1.HostPathCharDev, true}, {"/dev/null", corev1.HostPathBlockDev, false}, {dir + "/n", corev1.HostPathUnset, true},
	} {
		if err := checkHostPath(tt.path, &tt.typ); (err == nil) != tt.ok {
			t.Errorf("%s as %q: %v", tt.path, tt.typ, err)
		}
	}
}

func TestPathsThatLeadOut(t *testing.T) {
	m, _ := manager(t)
	for _, bad := range []string{"../x", "/x", "..x"} {
		if err := m.publish(pod(), filepath.Join(m.Root, "u", "v"), map[string]file{bad: {}}, false); err == nil {
			t.Errorf("%q was published", bad)
		}
	}
	for _, bad := range []string{"", "..", ".", "a/b"} {
		if err := m.Unmount(bad); err == nil {
			t.Errorf("%q was taken for a pod", bad)
		}
	}
}
