package plugins

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota"
	quotainstall "k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota/install"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/config/apis/webhookadmission"
	webhookv1 "k8s.io/apiserver/pkg/admission/plugin/webhook/config/apis/webhookadmission/v1"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"sigs.k8s.io/yaml"
)

// Settings is what an AdmissionConfiguration tells the plugins, by their names: each in a form of its own.
type Settings map[string][]byte

// ReadSettings reads a file of --admission-control-config-file. Paths in it are relative to the file. Files from before there
// was an AdmissionConfiguration are for ImagePolicyWebhook and PodNodeSelector.
func ReadSettings(file string) (Settings, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("unable to read admission control configuration from %q [%w]", file, err)
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	c, err := decode[*apiserver.AdmissionConfiguration](scheme, b)
	if runtime.IsMissingVersion(err) || runtime.IsMissingKind(err) || runtime.IsNotRegisteredError(err) {
		var old struct {
			ImagePolicy  any `json:"imagePolicy"`
			NodeSelector any `json:"podNodeSelectorPluginConfig"`
		}
		if yaml.Unmarshal(b, &old) == nil && (old.ImagePolicy != nil || old.NodeSelector != nil) {
			return Settings{"ImagePolicyWebhook": b, "PodNodeSelector": b}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	out := Settings{}
	for _, p := range c.Plugins {
		_, there := out[p.Name]
		switch {
		case there: // the first counts
		case p.Configuration != nil:
			out[p.Name] = p.Configuration.Raw
		case p.Path != "":
			if !filepath.IsAbs(p.Path) {
				p.Path = filepath.Join(filepath.Dir(file), p.Path)
			}
			if out[p.Name], err = os.ReadFile(p.Path); err != nil {
				return nil, fmt.Errorf("the configuration of %s: %w", p.Name, err)
			}
		}
	}
	return out, nil
}

// decode reads a document of one of the scheme's versions. Fields that it does not know are an error.
func decode[T runtime.Object](scheme *runtime.Scheme, b []byte) (out T, err error) {
	obj, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), b)
	if err != nil {
		return out, err
	}
	out, ok := obj.(T)
	if !ok {
		return out, fmt.Errorf("unexpected type: %T", obj)
	}
	return out, nil
}

// limited is what a ResourceQuotaConfiguration lets nobody use without a quota.
func limited(b []byte) ([]resourcequota.LimitedResource, error) {
	if b == nil {
		return nil, nil
	}
	scheme := runtime.NewScheme()
	quotainstall.Install(scheme)
	c, err := decode[*resourcequota.Configuration](scheme, b)
	if err != nil {
		return nil, err
	}
	return c.LimitedResources, nil
}

// credentials is the file of a WebhookAdmissionConfiguration by which webhooks know this server; "" for none.
func credentials(b []byte) (file string, err error) {
	if b == nil {
		return "", nil
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(webhookadmission.AddToScheme(scheme), webhookv1.AddToScheme(scheme)); err != nil {
		return "", err
	}
	c, err := decode[*webhookadmission.WebhookAdmission](scheme, b)
	switch {
	case err != nil:
		return "", err
	case c.StaticManifestsDir != "":
		return "", errors.New("staticManifestsDir is not supported")
	case c.KubeConfigFile != "" && !filepath.IsAbs(c.KubeConfigFile):
		return "", fmt.Errorf("kubeConfigFile: Invalid value: %q: must be an absolute file path", c.KubeConfigFile)
	}
	return c.KubeConfigFile, nil
}
