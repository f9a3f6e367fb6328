"""What the vault costs: `sqs_drain` where originals are sealed, and where they are not."""

import process
from run import Run
from ways import EXTENSION

# Nobody has the private key any more.
RECIPIENT = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"


def drain(ways, people, keeps):
    """`sqs_drain` at 0 ms, of logins of `people` people, into an empty vault: in a session that has called before, and
    so has its data key and its connections."""
    ways.cluster.empty(EXTENSION, "user_logins", "sqs_ledger", "sqs_vault", "sqs_vault_key")
    with ways.cluster.connect(EXTENSION) as connection:
        connection.execute("LOAD 'user_logins_sqs'")
        if keeps:
            recipients = ways.cluster.folder / "vault-recipients"
            recipients.write_text(RECIPIENT)
            connection.execute(f"SET user_logins_sqs.vault_recipients_file = '{recipients}'")
            # Nothing is sealed into tables that others may be allowed to read.
            for table in ("sqs_vault", "sqs_vault_key"):
                connection.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        ways.queue.fill(1, 0)
        connection.execute(f"SELECT sqs_ingest('{ways.queue.url}', 1, 0)")
        connection.execute("TRUNCATE user_logins, sqs_vault")
        ways.queue.fill(ways.messages, 0, people)
        pid = connection.info.backend_pid
        before = process.usage_by_thread(pid)
        connection.execute(f"CALL sqs_drain('{ways.queue.url}', 10000, {ways.messages})")
        counts = ways.queue.wait_until_deleted(ways.messages)
        after = process.usage_by_thread(pid)
    ways.check_rows(EXTENSION)
    check_entries(ways, people if keeps else 0)
    spent = {thread: (usage - before.get(thread, process.Usage())).on_cpu for thread, usage in after.items()}
    each = 1e6 / ways.messages
    backend = spent.pop(pid) * each
    io_thread = sum(spent.values()) * each
    return Run(
        ways.messages,
        counts["last_deleted_at"] - counts["first_received_at"],
        {"backend": backend, "io_thread": io_thread, "both": backend + io_thread},
    )


def check_entries(ways, people):
    """Each value has one entry. Some of that many random values are equal."""
    entries = ways.cluster.count("sqs_vault", EXTENSION)
    if not 1.99 * people <= entries <= 2 * people:
        raise RuntimeError(f"{entries} entries of {people} people")
