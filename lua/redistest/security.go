package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// Security is what guards the servers of a deployment. A nil one guards nothing.
type Security struct {
	Password string // of the user named default; empty: everybody may connect
	CAFile   string // PEM: the certificate that signed the servers'; empty: no TLS

	certFile, keyFile string
	roots             *x509.CertPool
}

// NewSecurity guards with a password, and with TLS by certificates that are made for 127.0.0.1 alone.
func NewSecurity(t testing.TB, password string) *Security {
	t.Helper()
	dir := t.TempDir()
	s := &Security{
		Password: password, CAFile: filepath.Join(dir, "ca.pem"),
		certFile: filepath.Join(dir, "server.pem"), keyFile: filepath.Join(dir, "server.key"),
		roots: x509.NewCertPool(),
	}
	authority, authorityKey := certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	server, serverKey := certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, authority, authorityKey)
	key, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, s.CAFile, "CERTIFICATE", authority.Raw)
	writePEM(t, s.certFile, "CERTIFICATE", server.Raw)
	writePEM(t, s.keyFile, "PRIVATE KEY", key)
	s.roots.AddCert(authority)
	return s
}

// certify makes a key and its certificate, signed by an authority, or by itself if there is none.
func certify(t testing.TB, template, authority *x509.Certificate,
	authorityKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if authority == nil {
		authority, authorityKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, &key.PublicKey, authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// args are those of a server on a port.
func (s *Security) args(port string) []string {
	if s == nil {
		return nil
	}
	var args []string
	if s.Password != "" {
		args = append(args, "--requirepass", s.Password, "--masterauth", s.Password)
	}
	if s.CAFile != "" {
		args = append(args, "--port", "0", "--tls-port", port, "--tls-replication", "yes",
			"--tls-auth-clients", "no",
			"--tls-cert-file", s.certFile, "--tls-key-file", s.keyFile, "--tls-ca-cert-file", s.CAFile)
	}
	return args
}

// url names servers that are guarded alike.
func (s *Security) url(query url.Values, servers ...*Server) string {
	u := url.URL{Scheme: "redis", Host: servers[0].Addr}
	if s != nil && s.CAFile != "" {
		u.Scheme = "rediss"
	}
	if s != nil && s.Password != "" {
		u.User = url.UserPassword("default", s.Password)
	}
	if query == nil {
		query = url.Values{}
	}
	for _, other := range servers[1:] {
		query.Add("addr", other.Addr)
	}
	u.RawQuery = query.Encode()
	return u.String()
}

func (s *Security) secure(option *rueidis.ClientOption) {
	if s == nil {
		return
	}
	option.Password = s.Password
	if s.CAFile != "" {
		option.TLSConfig = &tls.Config{RootCAs: s.roots}
	}
}
