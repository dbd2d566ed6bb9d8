// Package crd holds the CustomResourceDefinitions as the cluster gets them, for tools that judge manifests without one.
package crd

import "embed"

// Bases holds a file for each kind.
//
//go:embed bases/*.yaml
var Bases embed.FS
