#!/usr/bin/env python3
"""Lists, follows and unlocks accounts of Tidegate over its gRPC API."""

import argparse
import datetime
import sys

import grpc
from tidegate.v1 import account_pb2, admin_service_pb2, admin_service_pb2_grpc, command_pb2


def main() -> int:
    arguments = parse_arguments()
    try:
        with connect(arguments) as channel:
            admin = admin_service_pb2_grpc.AdminServiceStub(channel)
            arguments.run(admin, arguments)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


def list_accounts(admin, arguments) -> None:
    """All pages of the accounts whose mail is refused."""
    request = admin_service_pb2.ListAccountsRequest(filter=refused(arguments), page_size=100)
    while True:
        page = admin.ListAccounts(request, timeout=30)
        for state in page.accounts:
            print(line(state))
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def watch_accounts(admin, arguments) -> None:
    """What is refused now, and then every change, until so many lines were printed or for ever."""
    request = admin_service_pb2.WatchAccountsRequest(filter=refused(arguments), initial=True)
    printed = 0
    for answer in admin.WatchAccounts(request):
        if answer.HasField("state"):
            print(line(answer.state), flush=True)
            printed += 1
        if arguments.count and printed >= arguments.count:
            return


def unlock_account(admin, arguments) -> None:
    """Unlocks one account; says why, and why it is safe."""
    request = admin_service_pb2.UnlockAccountRequest(
        account=arguments.account,
        actor=arguments.actor,
        reason=arguments.reason,
        unlock=command_pb2.UnlockCommand(evidence=account_pb2.UnlockEvidence(note=arguments.evidence)),
    )
    answer = admin.UnlockAccount(request, timeout=30)
    print(line(answer.state) if answer.applied else f"accepted as command {answer.command_id}, not yet applied")


def refused(arguments) -> admin_service_pb2.AccountFilter:
    statuses = [account_pb2.ACCOUNT_STATUS_LOCKED, account_pb2.ACCOUNT_STATUS_THROTTLED]
    return admin_service_pb2.AccountFilter(statuses=statuses, domains=arguments.domain)


def line(state) -> str:
    status = account_pb2.AccountStatus.Name(state.status).removeprefix("ACCOUNT_STATUS_").lower()
    changed = datetime.datetime.fromtimestamp(state.changed_ms / 1000, datetime.timezone.utc)
    why = (state.lock.rule.name or state.lock.actor) if state.HasField("lock") else "-"
    return f"{changed:%Y-%m-%dT%H:%M:%SZ}  {state.account}  {status}  {why}  {state.lock.id or '-'}"


def connect(arguments) -> grpc.Channel:
    if not arguments.ca:
        return grpc.insecure_channel(arguments.server)
    with open(arguments.ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(root_certificates=file.read())
    if arguments.token_file:
        with open(arguments.token_file, encoding="utf-8") as file:
            token = grpc.access_token_call_credentials(file.read().strip())
        credentials = grpc.composite_channel_credentials(credentials, token)
    return grpc.secure_channel(arguments.server, credentials)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:7710", help="control's address (%(default)s)")
    parser.add_argument("--ca", help="PEM file with the authority of control's certificate; without it: no TLS")
    parser.add_argument("--token-file", help="file with your token")
    parser.add_argument("--domain", action="append", default=[], help="only accounts of this domain")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("list").set_defaults(run=list_accounts)
    watch = commands.add_parser("watch")
    watch.add_argument("--count", type=int, default=0, help="stop after so many lines")
    watch.set_defaults(run=watch_accounts)
    unlock = commands.add_parser("unlock")
    unlock.add_argument("account")
    unlock.add_argument("--reason", required=True)
    unlock.add_argument("--evidence", required=True, help="why the account is safe again")
    unlock.add_argument("--actor", default="", help="who asks; needed only where no credentials are")
    unlock.set_defaults(run=unlock_account)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
