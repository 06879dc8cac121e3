package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	return c.kubeconfig(fmt.Sprintf("https://%s:%d", c.NodeIP, c.APIPort), adminName, adminLeaf)
}

// AdminKubeconfigFile is where the server keeps the administrator's kubeconfig, readable by root alone.
func (c *Config) AdminKubeconfigFile() string { return c.path("admin.kubeconfig") }

// NodeKubeconfig is the kubeconfig that "skiff agent" on another machine joins with, as the node of that name.
func (c *Config) NodeKubeconfig(node string) ([]byte, error) {
	return c.kubeconfig(fmt.Sprintf("https://%s:%d", c.NodeIP, c.APIPort), "node-"+node, nodeLeaf(node))
}

func nodeLeaf(node string) pki.Leaf {
	return pki.Leaf{User: "system:node:" + node, Groups: []string{"system:nodes"}}
}

func (c *Config) kubeconfig(server, name string, leaf pki.Leaf) ([]byte, error) {
	ca, err := pki.Load(c.PKIDir(), authorityName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the cluster has no certificates yet (%w); start it with \"skiff up\"", err)
	}
	if err != nil {
		return nil, err
	}
	if _, err := ca.Keep(c.PKIDir(), name, leaf); err != nil {
		return nil, err
	}
	cert, err := os.ReadFile(filepath.Join(c.PKIDir(), name+".crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(c.PKIDir(), name+".key"))
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(clientcmdapi.Config{
		APIVersion: "v1", Kind: "Config", CurrentContext: c.Name,
		Clusters:  []clientcmdapi.NamedCluster{{Name: c.Name, Cluster: clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca.PEM}}},
		AuthInfos: []clientcmdapi.NamedAuthInfo{{Name: name, AuthInfo: clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}}},
		Contexts:  []clientcmdapi.NamedContext{{Name: c.Name, Context: clientcmdapi.Context{Cluster: c.Name, AuthInfo: name}}},
	})
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
