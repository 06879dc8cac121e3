package main

import "k8s.io/kube-openapi/pkg/common"

// GetOpenAPIDefinitions is nil until generate lays the generated definitions over this file.
var GetOpenAPIDefinitions common.GetOpenAPIDefinitions
