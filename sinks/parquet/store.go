package parquet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// store is where files go. Names have slashes.
type store interface {
	// put makes or replaces a file by a local one: whole, or not at all.
	put(ctx context.Context, name, local string) error
	// putBytes does so with bytes.
	putBytes(ctx context.Context, name string, data []byte) error
	// list returns the names below a folder, sorted.
	list(ctx context.Context, folder string) ([]string, error)
	// open returns a file to read at random, and its size. What it returns is to be closed.
	open(ctx context.Context, name string) (readAtCloser, int64, error)
	// check finds out whether files can be made here.
	check(ctx context.Context) error
}

type readAtCloser interface {
	io.ReaderAt
	io.Closer
}

// folder is a store on a local disk.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }

func (f folder) put(_ context.Context, name, local string) error {
	in, err := os.Open(local)
	if err != nil {
		return err
	}
	defer in.Close()
	return f.write(name, in)
}

func (f folder) putBytes(_ context.Context, name string, data []byte) error {
	return f.write(name, bytes.NewReader(data))
}

func (f folder) write(name string, in io.Reader) error {
	at := f.path(name)
	if err := os.MkdirAll(filepath.Dir(at), 0o750); err != nil {
		return err
	}
	// a name that readers of the folder pass over (Spark, DuckDB's *.parquet)
	tmp := filepath.Join(filepath.Dir(at), "."+filepath.Base(at)+".new")
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err == nil {
		err = os.Rename(tmp, at)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	for dir := filepath.Dir(at); ; dir = filepath.Dir(dir) { // folders that were made for it, too
		if err := syncFolder(dir); err != nil || dir == filepath.Clean(string(f)) || dir == filepath.Dir(dir) {
			return err
		}
	}
}

func (f folder) list(_ context.Context, below string) (names []string, err error) {
	entries, err := os.ReadDir(f.path(below))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, path.Join(below, e.Name()))
		}
	}
	return names, err
}

func (f folder) open(_ context.Context, name string) (readAtCloser, int64, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

func (f folder) check(context.Context) error {
	if err := os.MkdirAll(string(f), 0o750); err != nil {
		return err
	}
	t, err := os.CreateTemp(string(f), ".leat-*")
	if err != nil {
		return err
	}
	return errors.Join(t.Close(), os.Remove(t.Name()))
}

// S3 says how a bucket is reached.
type S3 struct {
	// Endpoint is the URL of the service; empty: Amazon's for the Region.
	Endpoint, Region string
	// AccessKey and SecretKey; empty: those of the environment (AWS_ACCESS_KEY_ID …), of a credentials file, or of the
	// machine's role.
	AccessKey, SecretKey string
}

// bucket is a store in S3 or what speaks its protocol. A put there is whole or nothing.
type bucket struct {
	client         *minio.Client
	bucket, prefix string
}

func newBucket(at *url.URL, o S3) (*bucket, error) {
	host, secure := "s3.amazonaws.com", true
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, errors.New("s3.endpoint is to be http://HOST:PORT or https://HOST:PORT")
		}
		host, secure = u.Host, u.Scheme == "https"
	}
	creds := credentials.NewStaticV4(o.AccessKey, o.SecretKey, "")
	if o.AccessKey == "" {
		creds = credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{}})
	}
	c, err := minio.New(host, &minio.Options{Creds: creds, Secure: secure, Region: o.Region})
	if err != nil {
		return nil, err
	}
	return &bucket{client: c, bucket: at.Host, prefix: strings.Trim(at.Path, "/")}, nil
}

func (b *bucket) key(name string) string { return path.Join(b.prefix, name) }

func (b *bucket) put(ctx context.Context, name, local string) error {
	_, err := b.client.FPutObject(ctx, b.bucket, b.key(name), local, minio.PutObjectOptions{ContentType: "application/vnd.apache.parquet"})
	return b.explain(err)
}

func (b *bucket) putBytes(ctx context.Context, name string, data []byte) error {
	_, err := b.client.PutObject(ctx, b.bucket, b.key(name), bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{ContentType: "application/json"})
	return b.explain(err)
}

func (b *bucket) list(ctx context.Context, below string) (names []string, err error) {
	prefix := b.key(below) + "/"
	for o := range b.client.ListObjects(ctx, b.bucket, minio.ListObjectsOptions{Prefix: prefix}) {
		if o.Err != nil {
			return nil, b.explain(o.Err)
		}
		names = append(names, path.Join(below, strings.TrimPrefix(o.Key, prefix)))
	}
	slices.Sort(names)
	return names, nil
}

func (b *bucket) open(ctx context.Context, name string) (readAtCloser, int64, error) {
	o, err := b.client.GetObject(ctx, b.bucket, b.key(name), minio.GetObjectOptions{})
	if err != nil {
		return nil, 0, b.explain(err)
	}
	info, err := o.Stat()
	if err != nil {
		return nil, 0, errors.Join(b.explain(err), o.Close())
	}
	return o, info.Size, nil
}

func (b *bucket) check(ctx context.Context) error {
	ok, err := b.client.BucketExists(ctx, b.bucket)
	if err == nil && !ok {
		return fmt.Errorf("there is no bucket %s: make it, or name another", b.bucket)
	}
	if err != nil {
		return b.explain(err)
	}
	const name = "_manifest/.leat-check" // of a name that readers and we pass over
	if err := b.putBytes(ctx, name, []byte("leat check\n")); err != nil {
		return err
	}
	if _, err := b.list(ctx, manifests); err != nil {
		return err
	}
	_ = b.client.RemoveObject(ctx, b.bucket, b.key(name), minio.RemoveObjectOptions{}) // may be refused: it does no harm
	return nil
}

// explain puts what services answer into words with a cure.
func (b *bucket) explain(err error) error {
	if err == nil {
		return nil
	}
	switch code := minio.ToErrorResponse(err).Code; code {
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return fmt.Errorf("bucket %s refuses these credentials (%s): renew them, or grant s3:PutObject, s3:GetObject and s3:ListBucket", b.bucket, code)
	case "NoSuchBucket":
		return fmt.Errorf("there is no bucket %s: make it, or name another", b.bucket)
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity":
		return fmt.Errorf("bucket %s is full (%s): make room", b.bucket, code)
	}
	return err
}

// newStore opens a folder, or s3://BUCKET/PREFIX.
func newStore(at string, o S3) (store, error) {
	if !strings.HasPrefix(at, "s3://") {
		return folder(at), nil
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("path %s is to be a folder or s3://BUCKET/PREFIX", at)
	}
	return newBucket(u, o)
}
