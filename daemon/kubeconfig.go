package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon/pki"
)

// Names of the certificates that are kept under the PKI folder.
const (
	authorityName = "ca"
	adminName     = "admin"
)

var adminLeaf = pki.Leaf{User: "kubernetes-admin", Groups: []string{"system:masters"}}

// Kubeconfig is an administrator's kubeconfig for the instance, with everything embedded. It needs the PKI folder, so
// the instance must have been started once, and the caller must be root.
func (c *Config) Kubeconfig() ([]byte, error) {
	return c.kubeconfig(fmt.Sprintf("https://%s:%d", c.NodeIP, c.APIPort), account{adminName, adminName, adminLeaf})
}

// AdminKubeconfigFile is where the server keeps the administrator's kubeconfig, readable by root alone.
func (c *Config) AdminKubeconfigFile() string { return c.path("admin.kubeconfig") }

// NodeKubeconfig is the kubeconfig that "skiff agent" on another machine joins with: the node's of that name, and in
// contexts of their own, named by their users, the other parts' that work there.
func (c *Config) NodeKubeconfig(node string) ([]byte, error) {
	serving := pki.Leaf{User: nodeLeaf(node).User, Groups: nodeLeaf(node).Groups, Server: true, DNS: []string{node}}
	accounts := []account{{"node-" + node, "node-" + node, nodeLeaf(node)}, {servingContext, servingContext + "-" + node, serving}}
	for _, u := range []user.Info{proxyUser, dnsUser, podnetUser} {
		accounts = append(accounts, account{u.GetName(), strings.ReplaceAll(strings.TrimPrefix(u.GetName(), "system:"), ":", "-"), pki.Leaf{User: u.GetName()}})
	}
	return c.kubeconfig(fmt.Sprintf("https://%s:%d", c.NodeIP, c.APIPort), accounts...)
}

// servingContext is the context whose certificate the node's own API serves with.
const servingContext = "kubelet-serving"

// account is a user of a kubeconfig, and the name of the files that its certificate is kept in.
type account struct {
	name, file string
	leaf       pki.Leaf
}

func nodeLeaf(node string) pki.Leaf {
	return pki.Leaf{User: "system:node:" + node, Groups: []string{"system:nodes"}}
}

// kubeconfig has a context for each account. The first one's is named like the instance, and is the current one.
func (c *Config) kubeconfig(server string, accounts ...account) ([]byte, error) {
	ca, err := pki.Load(c.PKIDir(), authorityName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the cluster has no certificates yet (%w); start it with \"skiff up\"", err)
	}
	if err != nil {
		return nil, err
	}
	out := clientcmdapi.Config{APIVersion: "v1", Kind: "Config", CurrentContext: c.Name,
		Clusters: []clientcmdapi.NamedCluster{{Name: c.Name, Cluster: clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca.PEM}}}}
	for i, a := range accounts {
		if _, err := ca.Keep(c.PKIDir(), a.file, a.leaf); err != nil {
			return nil, err
		}
		cert, err := os.ReadFile(filepath.Join(c.PKIDir(), a.file+".crt"))
		if err != nil {
			return nil, err
		}
		key, err := os.ReadFile(filepath.Join(c.PKIDir(), a.file+".key"))
		if err != nil {
			return nil, err
		}
		context := a.name
		if i == 0 {
			context = c.Name
		}
		out.AuthInfos = append(out.AuthInfos, clientcmdapi.NamedAuthInfo{Name: a.name, AuthInfo: clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}})
		out.Contexts = append(out.Contexts, clientcmdapi.NamedContext{Name: context, Context: clientcmdapi.Context{Cluster: c.Name, AuthInfo: a.name}})
	}
	return yaml.Marshal(out)
}

// AdminClient is an administrator's client of the instance.
func (c *Config) AdminClient() (client.Interface, error) {
	t, err := c.adminTLS()
	if err != nil {
		return nil, err
	}
	return client.NewHTTP(client.HTTPConfig{Server: c.URL(), TLS: t, UserAgent: "skiff"})
}

// adminTLS reads what the server has written at its start; it makes nothing itself, for it may run beside that start.
func (c *Config) adminTLS() (*tls.Config, error) {
	ca, err := pki.Load(c.PKIDir(), authorityName)
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(c.PKIDir(), adminName+".crt"), filepath.Join(c.PKIDir(), adminName+".key"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert}}, nil
}
