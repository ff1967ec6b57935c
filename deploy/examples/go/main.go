// Lists, follows and unlocks accounts of Tidegate over its gRPC API.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	pb "tidegate-example/tidegatev1"
)

var (
	server    = flag.String("server", "127.0.0.1:7710", "control's address")
	ca        = flag.String("ca", "", "PEM file with the authority of control's certificate; without it: no TLS")
	tokenFile = flag.String("token-file", "", "file with your token")
	domain    = flag.String("domain", "", "only accounts of this domain")
	count     = flag.Int("count", 0, "watch: stop after so many lines")
	reason    = flag.String("reason", "", "unlock: why")
	evidence  = flag.String("evidence", "", "unlock: why the account is safe again")
	actor     = flag.String("actor", "", "unlock: who asks; needed only where no credentials are")
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: tidegate-example [flags] list | watch | unlock ACCOUNT")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	connection, err := connect()
	if err != nil {
		return err
	}
	defer connection.Close()
	admin := pb.NewAdminServiceClient(connection)
	switch command := flag.Arg(0); {
	case command == "list":
		return list(ctx, admin)
	case command == "watch":
		return watch(ctx, admin)
	case command == "unlock" && flag.NArg() == 2:
		return unlock(ctx, admin, flag.Arg(1))
	default:
		flag.Usage()
		os.Exit(2)
		return nil
	}
}

// All pages of the accounts whose mail is refused.
func list(ctx context.Context, admin pb.AdminServiceClient) error {
	request := &pb.ListAccountsRequest{Filter: refused(), PageSize: 100}
	for {
		page, err := admin.ListAccounts(ctx, request)
		if err != nil {
			return err
		}
		for _, state := range page.Accounts {
			fmt.Println(line(state))
		}
		if page.NextPageToken == "" {
			return nil
		}
		request.PageToken = page.NextPageToken
	}
}

// What is refused now, and then every change, until so many lines were printed or for ever.
func watch(ctx context.Context, admin pb.AdminServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := admin.WatchAccounts(ctx, &pb.WatchAccountsRequest{Filter: refused(), Initial: true})
	if err != nil {
		return err
	}
	for printed := 0; *count == 0 || printed < *count; {
		change, err := changes.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if state := change.GetState(); state != nil {
			fmt.Println(line(state))
			printed++
		}
	}
	return nil
}

// Unlocks one account; says why, and why it is safe.
func unlock(ctx context.Context, admin pb.AdminServiceClient, account string) error {
	answer, err := admin.UnlockAccount(ctx, &pb.UnlockAccountRequest{
		Account: account,
		Actor:   *actor,
		Reason:  *reason,
		Unlock:  &pb.UnlockCommand{Evidence: &pb.UnlockEvidence{Note: *evidence}},
	})
	if err != nil {
		return err
	}
	if !answer.Applied {
		fmt.Printf("accepted as command %s, not yet applied\n", answer.CommandId)
		return nil
	}
	fmt.Println(line(answer.State))
	return nil
}

func refused() *pb.AccountFilter {
	filter := &pb.AccountFilter{
		Statuses: []pb.AccountStatus{pb.AccountStatus_ACCOUNT_STATUS_LOCKED, pb.AccountStatus_ACCOUNT_STATUS_THROTTLED},
	}
	if *domain != "" {
		filter.Domains = []string{*domain}
	}
	return filter
}

func line(state *pb.AccountState) string {
	status := strings.ToLower(strings.TrimPrefix(state.Status.String(), "ACCOUNT_STATUS_"))
	changed := time.UnixMilli(state.ChangedMs).UTC().Format(time.RFC3339)
	why, id := "-", "-"
	if lock := state.Lock; lock != nil {
		why, id = lock.Actor, lock.Id
		if lock.Rule != nil {
			why = lock.Rule.Name
		}
	}
	return strings.Join([]string{changed, state.Account, status, why, id}, "  ")
}

func connect() (*grpc.ClientConn, error) {
	if *ca == "" {
		return grpc.Dial(*server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", *ca)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots}))}
	if *tokenFile != "" {
		secret, err := os.ReadFile(*tokenFile)
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer(strings.TrimSpace(string(secret)))))
	}
	return grpc.Dial(*server, options...)
}

// A token that goes with every call, over TLS only.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }
