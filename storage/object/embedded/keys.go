package embedded

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/versity/versitygw/auth"

	"github.com/clary-ml/clary/internal/fault"
)

// RootAccess is the access key of the cluster itself.
const RootAccess = "CLARY-ROOT"

// What the holder of a key may do, named as the roles of users' tokens are.
const (
	RoleViewer = "viewer" // read
	RoleUser   = "user"   // write too
	RoleAdmin  = "admin"  // change buckets' settings too
)

// accessPrefixes makes the role a part of the access key. The secret is derived from
// the whole access key, so nobody can change the role and keep a working secret.
var accessPrefixes = map[string]string{
	RoleViewer: "CLARY-VIEWER-",
	RoleUser:   "CLARY-USER-",
	RoleAdmin:  "CLARY-ADMIN-",
}

// Keys derives the S3 key pair that belongs to a user's token: the store needs the
// data key alone to check it, and no state.
func Keys(dataKey []byte, role, tokenID string) (access, secret string, err error) {
	prefix, ok := accessPrefixes[role]
	if !ok || tokenID == "" || strings.ContainsAny(tokenID, "/ ,") {
		return "", "", fault.New(fault.Invalid, "object store keys for role %q, token %q: the role must be viewer, user or admin", role, tokenID)
	}
	access = prefix + tokenID
	return access, derive(dataKey, access), nil
}

func derive(dataKey []byte, access string) string {
	mac := hmac.New(sha256.New, dataKey)
	mac.Write([]byte("clary object store\x00" + access))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// roleOf returns the role that an access key claims, or "" if it is not one of ours.
func roleOf(access string) string {
	if access == RootAccess {
		return RoleAdmin
	}
	for role, prefix := range accessPrefixes {
		if id, ok := strings.CutPrefix(access, prefix); ok && id != "" {
			return role
		}
	}
	return ""
}

// tokenOf is the token that an access key of ours belongs to.
func tokenOf(access string) string {
	for _, prefix := range accessPrefixes {
		if id, ok := strings.CutPrefix(access, prefix); ok {
			return id
		}
	}
	return ""
}

// iam is the gateway's account service: root, and every derived key whose token is good. It
// stores nothing, so the parts that change accounts answer as root's alone does: unsupported.
type iam struct {
	auth.IAMService // of root alone
	dataKey         []byte
	holders         *holders
}

// GetUserAccount answers with an admin in the gateway's sense, who may use every
// bucket; what the role may not do is refused by guard before the gateway looks.
func (s iam) GetUserAccount(access string) (auth.Account, error) {
	switch {
	case access == RootAccess:
		return s.IAMService.GetUserAccount(access)
	case roleOf(access) == "" || !s.holders.admit(tokenOf(access)):
		return auth.Account{}, auth.ErrNoSuchUser
	}
	return auth.Account{Access: access, Secret: derive(s.dataKey, access), Role: auth.RoleAdmin}, nil
}

// ResolveAccounts returns those access keys that do not exist.
func (s iam) ResolveAccounts(keys []string) ([]string, error) {
	missing := []string{}
	for _, access := range keys {
		if roleOf(access) == "" {
			missing = append(missing, access)
		}
	}
	return missing, nil
}
