package keyring

import (
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Step returns the secrets after one step of a rotation, with an ID of their own: add makes a new key, use puts it to
// use, drop forgets the old one, cancel the new one.
func (k *Keyring) Step(what cluster.Rotation, step cluster.Phase, now time.Time) (*Keyring, error) {
	next := *k
	next.ID = hex.EncodeToString(random()[:8])
	var err error
	switch what {
	case cluster.RotateCA:
		err = next.stepCA(step, now)
	case cluster.RotateGossip:
		next.GossipKeys, err = stepKeys(k.GossipKeys, step)
	case cluster.RotateData:
		next.SealKeys, err = stepKeys(k.SealKeys, step)
	default:
		err = fault.New(fault.Invalid, "%q cannot be rotated: ca, gossip or data can", what)
	}
	return &next, err
}

// stepKeys takes a step on a list whose first key is in use.
func stepKeys(keys [][]byte, step cluster.Phase) ([][]byte, error) {
	return stepList(keys, step, func() ([]byte, error) { return random(), nil })
}

func stepList[K any](keys []K, step cluster.Phase, make func() (K, error)) ([]K, error) {
	keys = slices.Clone(keys)
	two := len(keys) == 2
	switch {
	case step == cluster.PhaseAdd && len(keys) == 1:
		key, err := make()
		return append(keys, key), err
	case step == cluster.PhaseUse && two:
		slices.Reverse(keys)
		return keys, nil
	case (step == cluster.StepDrop || step == cluster.StepAbort) && two:
		return keys[:1], nil
	}
	return nil, fault.New(fault.Conflict, "%s: the keyring has %d keys: another rotation is not through", step, len(keys))
}

// stepCA is stepKeys for CAs, of which the old one vouches for its successor.
func (k *Keyring) stepCA(step cluster.Phase, now time.Time) error {
	cas, err := stepList(append([]*pki.Authority{k.Authority}, k.OtherCAs...), step, func() (*pki.Authority, error) {
		return pki.NewAuthority("clary "+k.ID, now)
	})
	if err != nil {
		return err
	}
	k.Authority, k.OtherCAs = cas[0], cas[1:]
	switch step {
	case cluster.PhaseAdd:
		link, err := cas[0].Link(cas[1].Certificate(), now) // not the other way round: the old one would be vouched for when it is dropped
		if err != nil {
			return err
		}
		k.Links = []*x509.Certificate{link}
	case cluster.StepDrop, cluster.StepAbort:
		k.Links = nil
	}
	return nil
}

// CAs are the certificates of all CAs that are trusted, the one that signs first.
func (k *Keyring) CAs() []*x509.Certificate {
	cas := []*x509.Certificate{k.Authority.Certificate()}
	for _, other := range k.OtherCAs {
		cas = append(cas, other.Certificate())
	}
	return cas
}

// Trust is what the cluster's members are to trust by these secrets.
func (k *Keyring) Trust(revoked []cluster.Revocation) pki.Trust {
	return pki.Trust{CAs: k.CAs(), Links: k.Links, Revoked: revoked}
}

// ders are certificates as they go over the wire.
func ders(certs []*x509.Certificate) [][]byte {
	var list [][]byte
	for _, cert := range certs {
		list = append(list, cert.Raw)
	}
	return list
}

// Tell writes into the trust what is public of these secrets.
func (k *Keyring) Tell(t cluster.Trust) cluster.Trust {
	t.Keyring, t.CAs, t.Links = k.ID, ders(k.CAs()), ders(k.Links)
	return t
}

// Newest says whether a sealed value opens with the key that seals now.
func (k *Keyring) Newest(sealed []byte, context string) bool {
	_, err := open(k.SealKeys[0], sealed, context)
	return err == nil
}
