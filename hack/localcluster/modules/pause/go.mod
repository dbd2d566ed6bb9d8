// The module of the pause program, which holds a pod's namespaces open.
module github.com/mcpwarden/mcp-warden/hack/localcluster/modules/pause

go 1.26.0
