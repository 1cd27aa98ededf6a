// Package auth decides who may do what: the table of roles, and the tokens by which
// users and joining machines show who they are.
//
// It is pure: tokens are values of cluster.Token that the caller stores and looks up,
// and the time is an argument. Only the making of a token draws randomness.
package auth

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Action is something that a role may do or not.
type Action string

// The actions, from harmless to powerful.
const (
	Read           Action = "read jobs, nodes, queues, logs and objects"
	Invoke         Action = "invoke endpoints"
	RenewOwn       Action = "renew their own tokens"
	Submit         Action = "submit jobs and write objects"
	UseHands       Action = "run programs in own jobs' tasks and connect to them"
	KeepSecrets    Action = "set and delete secrets"
	ControlOwn     Action = "change and stop own jobs"
	ControlAny     Action = "change and stop other users' jobs"
	ManageQueues   Action = "change queues"
	ManageNodes    Action = "drain and remove nodes"
	ManageTokens   Action = "make, list and revoke tokens"
	ManageSettings Action = "change the cluster's settings"
	Audit          Action = "read the audit and the record of decisions"
	Operate        Action = "operate the cluster: its members, keys and backups, and what its processes do"
)

// Actions lists every action.
func Actions() []Action {
	return []Action{Read, Invoke, RenewOwn, Submit, UseHands, KeepSecrets, ControlOwn, ControlAny, ManageQueues, ManageNodes, ManageTokens, ManageSettings, Audit, Operate}
}

// Allow is the table: viewers read, invokers only invoke, users read, invoke and work, admins do
// everything, and all of them renew their own tokens. A role that is none of these may do nothing.
func Allow(role string, action Action) bool {
	switch action {
	case Read:
		return role == cluster.RoleViewer || role == cluster.RoleUser || role == cluster.RoleAdmin
	case Invoke:
		return role == cluster.RoleInvoker || role == cluster.RoleUser || role == cluster.RoleAdmin
	case RenewOwn:
		return role == cluster.RoleViewer || role == cluster.RoleInvoker || role == cluster.RoleUser || role == cluster.RoleAdmin
	case Submit, UseHands, KeepSecrets, ControlOwn:
		return role == cluster.RoleUser || role == cluster.RoleAdmin
	case ControlAny, ManageQueues, ManageNodes, ManageTokens, ManageSettings, Audit, Operate:
		return role == cluster.RoleAdmin
	}
	return false
}

// Authorize is Allow with an error that says which role would do.
func Authorize(role string, action Action) error {
	if Allow(role, action) {
		return nil
	}
	for _, r := range [...]string{cluster.RoleViewer, cluster.RoleInvoker, cluster.RoleUser, cluster.RoleAdmin} {
		if Allow(r, action) {
			return fault.New(fault.Denied, "the role %q may not %s: it takes the role %q; ask an admin for a token with it",
				role, action, r)
		}
	}
	return fault.New(fault.Denied, "%q is no action that any role may do", action)
}
