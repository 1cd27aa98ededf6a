package embedded

import (
	"net/http"
	"strings"
)

// request is what guard looks at.
type request struct {
	method        string
	authorization string // the header
	credential    string // X-Amz-Credential of the query: a presigned request
	contentType   string
	query         func(name string) bool
}

// claimed returns the access key that a request claims; the gateway then checks its
// signature against the secret of exactly that key.
func (r request) claimed() string {
	credential := r.credential
	if r.authorization != "" {
		_, after, _ := strings.Cut(r.authorization, "Credential=")
		credential = after
	}
	access, _, _ := strings.Cut(credential, "/")
	return access
}

// settings are the parts of a bucket that decide who may do what.
var settings = []string{"policy", "acl", "cors", "ownershipControls", "versioning", "object-lock", "website", "publicAccessBlock"}

// guard says why a request is refused, or "". It is deny-first: it knows only what the
// request claims, and lets nothing through that the gateway would not check again.
func guard(r request) string {
	if r.method == http.MethodGet || r.method == http.MethodHead || r.method == http.MethodOptions {
		return ""
	}
	if strings.HasPrefix(strings.ToLower(r.contentType), "multipart/form-data") {
		return "uploads by browser form are not offered: use a presigned PUT"
	}
	access := r.claimed()
	if access == RootAccess {
		return ""
	}
	switch roleOf(access) {
	case RoleAdmin:
		if r.method == http.MethodPatch {
			return "accounts are made by Clary: use clary token"
		}
		return ""
	case RoleUser:
		if r.method == http.MethodPatch {
			return "accounts are made by Clary: ask an admin"
		}
		for _, name := range settings {
			if r.query(name) {
				return "changing a bucket's " + name + " takes the role admin"
			}
		}
		return ""
	case RoleViewer:
		return "the role viewer may read only"
	}
	return "the access key is not one of this cluster's"
}
