// Package object is Clary's one S3 client. It speaks to the embedded store (see
// package embedded) and to any other S3 in the same way, always over TLS unless the
// endpoint is a loopback address.
package object

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/clary-ml/clary/internal/fault"
)

// partSize is how a stream of unknown length is cut: 10,000 parts make 156 GiB.
const partSize = 16 << 20

// digestKey is the user metadata under which PutFile keeps the object's SHA-256.
const digestKey = "Clary-Sha256"

// Config says where a store is and who calls.
type Config struct {
	Endpoint  string // host:port
	AccessKey string
	SecretKey string
	Region    string // us-east-1 if empty
	CA        []byte // PEM; the system's CAs if empty
	Insecure  bool   // plain HTTP, for loopback only
}

// Validate reports every mistake in the configuration.
func (c Config) Validate() error {
	var problems []error
	host, _, err := net.SplitHostPort(c.Endpoint)
	if err != nil || host == "" {
		problems = append(problems, fault.New(fault.Invalid, "endpoint %q: it must be host:port", c.Endpoint))
	}
	if c.AccessKey == "" || c.SecretKey == "" {
		problems = append(problems, fault.New(fault.Invalid, "access key and secret key must both be set"))
	}
	if c.Insecure && !loopback(host) {
		problems = append(problems, fault.New(fault.Invalid, "endpoint %q: only a loopback address may be spoken to without TLS", c.Endpoint))
	}
	if len(c.CA) > 0 && !x509.NewCertPool().AppendCertsFromPEM(c.CA) {
		problems = append(problems, fault.New(fault.Invalid, "ca: there is no PEM certificate in it"))
	}
	if len(problems) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "object store: %w", errors.Join(problems...))
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Client is an S3 client. It may be used from any goroutine.
type Client struct{ s3 *minio.Client }

// Open makes a client. It does not connect yet.
func Open(c Config) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	transport, err := minio.DefaultTransport(!c.Insecure)
	if err != nil {
		return nil, fault.New(fault.Internal, "object store: %w", err)
	}
	if len(c.CA) > 0 {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(c.CA)
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	region := c.Region
	if region == "" {
		region = "us-east-1"
	}
	s3, err := minio.New(c.Endpoint, &minio.Options{
		Creds:        credentials.NewStaticV4(c.AccessKey, c.SecretKey, ""),
		Secure:       !c.Insecure,
		Region:       region,
		Transport:    clocked{transport},
		BucketLookup: minio.BucketLookupAuto,
	})
	if err != nil {
		return nil, fault.New(fault.Invalid, "object store: %w", err)
	}
	return &Client{s3}, nil
}

// maxSkew is how far a store lets a request's time be from its own.
const maxSkew = 15 * time.Minute

// skewed is S3's code for it.
const skewed = "RequestTimeTooSkewed"

// clocked says what S3 does not where a request is denied for its time: to a question without a body, as of an
// object's size, it answers 403 and no more. The error's code and words are put where the S3 client looks for them.
type clocked struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (c clocked) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := c.RoundTripper.RoundTrip(request)
	if err != nil || response.StatusCode != http.StatusForbidden {
		return response, err
	}
	theirs, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return response, nil
	}
	if apart := time.Until(theirs).Round(time.Second).Abs(); apart >= maxSkew {
		response.Header.Set("X-Minio-Error-Code", skewed)
		response.Header.Set("X-Minio-Error-Desc", fmt.Sprintf("the clocks of this machine and of the object store are %s apart, and it denies what is %s off: set the one that is wrong", apart, maxSkew))
	}
	return response, nil
}

// Info describes an object.
type Info struct {
	URI      URI
	Size     int64
	ETag     string
	Modified time.Time
	// SHA256 is the content's digest in hexadecimal. It is known of objects that were
	// written by PutFile, and empty of others.
	SHA256 string
}

// Put writes a stream, in parts if it is long. A size of -1 is unknown. The returned
// Info has the digest of what was sent, but the store does not keep it: see PutFile.
func (c *Client) Put(ctx context.Context, to URI, content io.Reader, size int64) (Info, error) {
	return c.put(ctx, to, content, size, nil)
}

// PutFile writes a file, and its SHA-256 as metadata.
func (c *Client) PutFile(ctx context.Context, to URI, file string) (Info, error) {
	f, err := os.Open(file)
	if err != nil {
		return Info{}, fault.New(fault.NotFound, "put %s: %w", to, err)
	}
	defer f.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return Info{}, fault.New(fault.Internal, "put %s: %w", to, err)
	}
	digest := hex.EncodeToString(hash.Sum(nil))
	info, err := c.put(ctx, to, f, size, map[string]string{digestKey: digest})
	if err == nil && info.SHA256 != digest {
		return Info{}, fault.New(fault.Conflict, "put %s: %s changed while it was being sent; send it again", to, file)
	}
	return info, err
}

func (c *Client) put(ctx context.Context, to URI, content io.Reader, size int64, meta map[string]string) (Info, error) {
	if err := to.checkKey(); err != nil {
		return Info{}, err
	}
	options := minio.PutObjectOptions{UserMetadata: meta}
	if size < 0 {
		options.PartSize = partSize
	}
	hash := sha256.New()
	up, err := c.s3.PutObject(ctx, to.Bucket, to.Key, io.TeeReader(content, hash), size, options)
	if err != nil {
		return Info{}, classify("put", to, err)
	}
	return Info{URI: to, Size: up.Size, ETag: up.ETag, Modified: up.LastModified, SHA256: hex.EncodeToString(hash.Sum(nil))}, nil
}

// Get opens an object from offset on; a length of -1 is to the end. The caller closes it.
func (c *Client) Get(ctx context.Context, from URI, offset, length int64) (io.ReadCloser, error) {
	body, _, err := c.Open(ctx, from, offset, length)
	return body, err
}

// Open is Get with what the store says of the object whose bytes these are. Its size is
// that of the part.
func (c *Client) Open(ctx context.Context, from URI, offset, length int64) (io.ReadCloser, Info, error) {
	if err := from.checkKey(); err != nil {
		return nil, Info{}, err
	}
	if offset < 0 || length < -1 || length == 0 {
		return nil, Info{}, fault.New(fault.Invalid, "get %s: offset %d, length %d: the offset starts at 0, and the length is positive or -1", from, offset, length)
	}
	var options minio.GetObjectOptions
	var err error
	switch {
	case length > 0:
		err = options.SetRange(offset, offset+length-1)
	case offset > 0:
		err = options.SetRange(offset, 0)
	}
	if err != nil {
		return nil, Info{}, fault.New(fault.Invalid, "get %s: %w", from, err)
	}
	core := minio.Core{Client: c.s3}
	body, info, _, err := core.GetObject(ctx, from.Bucket, from.Key, options)
	if err != nil {
		return nil, Info{}, classify("get", from, err)
	}
	info.Key = from.Key
	return body, infoOf(from.Bucket, info), nil
}

// Stat describes an object without its content.
func (c *Client) Stat(ctx context.Context, of URI) (Info, error) {
	if err := of.checkKey(); err != nil {
		return Info{}, err
	}
	o, err := c.s3.StatObject(ctx, of.Bucket, of.Key, minio.StatObjectOptions{})
	if err != nil {
		return Info{}, classify("stat", of, err)
	}
	return infoOf(of.Bucket, o), nil
}

// List returns the objects whose key starts with prefix.Key, in order of their keys.
func (c *Client) List(ctx context.Context, prefix URI) ([]Info, error) {
	var out []Info
	err := c.Each(ctx, prefix, "", func(info Info) bool {
		out = append(out, info)
		return true
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Each hands on the objects whose key starts with prefix.Key and comes behind another, in order of their keys, until no more are wanted.
func (c *Client) Each(ctx context.Context, prefix URI, after string, take func(Info) (more bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range c.s3.ListObjects(ctx, prefix.Bucket, minio.ListObjectsOptions{Prefix: prefix.Key, Recursive: true, StartAfter: after}) {
		if o.Err != nil {
			return classify("list", prefix, o.Err)
		}
		if !take(infoOf(prefix.Bucket, o)) {
			return nil
		}
	}
	return nil
}

// Folders are the names of folders right below a prefix that ends in a slash, in the store's order, behind the one named after; at most so
// many. That is the order of what is in them: a-b comes before a, as a-b/ does before a/.
func (c *Client) Folders(ctx context.Context, below URI, after string, most int) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	options := minio.ListObjectsOptions{Prefix: below.Key, MaxKeys: min(most+1, 1000)}
	if after != "" {
		options.StartAfter = below.Key + after + "/"
	}
	var names []string
	for o := range c.s3.ListObjects(ctx, below.Bucket, options) {
		if o.Err != nil {
			return nil, classify("list", below, o.Err)
		}
		name, isFolder := strings.CutSuffix(strings.TrimPrefix(o.Key, below.Key), "/")
		if !isFolder || o.Key <= options.StartAfter { // some tell of the one that is named, too
			continue
		}
		if names = append(names, name); len(names) == most {
			break
		}
	}
	return names, nil
}

// Extent is how much there is below a prefix.
type Extent struct {
	Objects int64
	Bytes   int64
	Newest  time.Time // when the last of them was written; zero if there is none
}

// Add is the extent with one more object.
func (e Extent) Add(bytes int64, written time.Time) Extent {
	e.Objects, e.Bytes = e.Objects+1, e.Bytes+bytes
	if written.After(e.Newest) {
		e.Newest = written
	}
	return e
}

// Plus is both together.
func (e Extent) Plus(other Extent) Extent {
	if other.Newest.After(e.Newest) {
		e.Newest = other.Newest
	}
	return Extent{e.Objects + other.Objects, e.Bytes + other.Bytes, e.Newest}
}

// Extent is how much there is below a prefix.
func (c *Client) Extent(ctx context.Context, below URI) (Extent, error) {
	var found Extent
	err := c.Each(ctx, below, "", func(info Info) bool {
		found = found.Add(info.Size, info.Modified)
		return true
	})
	return found, err
}

func infoOf(bucket string, o minio.ObjectInfo) Info {
	return Info{URI{bucket, o.Key}, o.Size, o.ETag, o.LastModified, o.UserMetadata[digestKey]}
}

// Delete removes an object. That there is none is no error.
func (c *Client) Delete(ctx context.Context, at URI) error {
	if err := at.checkKey(); err != nil {
		return err
	}
	return classify("delete", at, c.s3.RemoveObject(ctx, at.Bucket, at.Key, minio.RemoveObjectOptions{}))
}

// DeletePrefix removes every object whose key starts with prefix.Key, and says how
// much that was. The prefix must end in a slash, so that jobs/a does not take jobs/ab with it.
func (c *Client) DeletePrefix(ctx context.Context, prefix URI) (Extent, error) {
	if !strings.HasSuffix(prefix.Key, "/") {
		return Extent{}, fault.New(fault.Invalid, "delete %s: a prefix must end with a slash", prefix)
	}
	var gone Extent
	var failed error
	err := c.Each(ctx, prefix, "", func(info Info) bool {
		if failed = c.Delete(ctx, info.URI); failed == nil {
			gone = gone.Add(info.Size, info.Modified)
		}
		return failed == nil
	})
	return gone, errors.Join(failed, err)
}

// Copy copies an object inside the store, with its metadata.
func (c *Client) Copy(ctx context.Context, to, from URI) error {
	if err := errors.Join(to.checkKey(), from.checkKey()); err != nil {
		return fault.New(fault.Invalid, "copy: %w", err)
	}
	_, err := c.s3.ComposeObject(ctx, minio.CopyDestOptions{Bucket: to.Bucket, Object: to.Key},
		minio.CopySrcOptions{Bucket: from.Bucket, Object: from.Key})
	return classify("copy to "+to.String()+" from", from, err)
}

// EnsureBucket makes a bucket unless it exists.
func (c *Client) EnsureBucket(ctx context.Context, bucket string) error {
	u := URI{Bucket: bucket}
	if ok, err := c.s3.BucketExists(ctx, bucket); err != nil || ok {
		return classify("look for", u, err)
	}
	err := c.s3.MakeBucket(ctx, bucket, minio.MakeBucketOptions{})
	switch minio.ToErrorResponse(err).Code {
	case minio.BucketAlreadyOwnedByYou, minio.BucketAlreadyExists:
		return nil
	}
	return classify("make", u, err)
}

// classify turns a store's answer into a kind of error. A nil error stays nil.
func classify(verb string, u URI, err error) error {
	if err == nil {
		return nil
	}
	kind := fault.Unready // the network, or a store that is starting
	answer := minio.ToErrorResponse(err)
	switch {
	case answer.StatusCode == http.StatusNotFound || answer.Code == minio.NoSuchKey || answer.Code == minio.NoSuchBucket:
		kind = fault.NotFound
	case answer.Code == skewed:
		kind = fault.Unready // clocks are set again
	case answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized:
		kind = fault.Denied
	case answer.StatusCode == http.StatusConflict || answer.StatusCode == http.StatusPreconditionFailed:
		kind = fault.Conflict
	case answer.StatusCode == http.StatusInsufficientStorage:
		return fault.New(fault.Exhausted, "%s %s: the disk under the object store is full: delete objects, or give it more: %w", verb, u, err)
	case answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusServiceUnavailable:
		kind = fault.Unready
	case answer.StatusCode >= 400 && answer.StatusCode < 500:
		kind = fault.Invalid
	case errors.Is(err, context.Canceled), answer.StatusCode >= 500:
		kind = fault.Internal
	}
	return fault.New(kind, "%s %s: %w", verb, u, err)
}

// Join returns the URI of a name under this one.
func (u URI) Join(names ...string) URI {
	u.Key = strings.TrimPrefix(path.Join(append([]string{"/", u.Key}, names...)...), "/")
	return u
}
