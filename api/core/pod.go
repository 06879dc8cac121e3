package core

import (
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"strconv"

	"github.com/skiff-sh/skiff/api"
)

var pod = &api.Kind{
	Version: "v1", Kind: "Pod",
	Plural: "pods", Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "pods",
	New:         api.New[corev1.Pod], NewList: api.NewList[corev1.PodList],
	Validate:       api.Check(validatePod),
	ValidateUpdate: api.CheckUpdate(validatePodUpdate),
	ValidateStatus: api.CheckUpdate(validatePodStatus),
	Warnings:       podWarnings,
	GracefulDelete: gracefulDeletePod,
	FieldKeys: []string{"spec.hostNetwork", "spec.nodeName", "spec.restartPolicy", "spec.schedulerName",
		"spec.serviceAccountName", "status.nominatedNodeName", "status.phase", "status.podIP", "status.podIPs"},
	Fields:        api.Selectable(podFields),
	Columns:       podColumns,
	PrepareCreate: api.OnCreate(createPod),
	PrepareUpdate: api.OnUpdate(func(x, old *corev1.Pod) { dropDisabled(&x.Spec, &old.Spec) }),
	Default:       api.Defaults(defaultPod),
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Connect("attach", "PodAttachOptions", "create", "get"),
		api.Action[corev1.Binding]("binding", "", "v1", "Binding"),
		api.PartOf("ephemeralcontainers", "get", "patch", "update"),
		api.Action[policyv1.Eviction]("eviction", "policy", "v1", "Eviction"),
		api.Connect("exec", "PodExecOptions", "create", "get"),
		api.Connect("log", "Pod", "get"),
		api.Connect("portforward", "PodPortForwardOptions", "create", "get"),
		api.Connect("proxy", "PodProxyOptions", "create", "delete", "get", "patch", "update"),
		api.PartOf("resize", "get", "patch", "update"),
		api.Status(),
	},
}

func createPod(x *corev1.Pod) {
	dropDisabled(&x.Spec, nil)
	x.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: QOSClass(x)}
	if len(x.Spec.SchedulingGates) > 0 {
		x.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			LastTransitionTime: x.CreationTimestamp,
			Message:            "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
}

// gracefulDeletePod gives a pod on a node the time to end that the caller or its spec names.
func gracefulDeletePod(obj api.Object, o *metav1.DeleteOptions) bool {
	p := obj.(*corev1.Pod)
	period := int64(corev1.DefaultTerminationGracePeriodSeconds)
	switch {
	case p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded:
		period = 0
	case o.GracePeriodSeconds != nil:
		period = *o.GracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	if period < 0 {
		period = 1
	}
	o.GracePeriodSeconds = &period
	return period > 0
}

func podFields(p *corev1.Pod) map[string]string {
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return map[string]string{
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.podIPs":            ip,
	}
}
