"""Asks what notebooks ask. Arguments: host, port, user, password, database or -."""
import sys

import clickhouse_connect

host, port, user, password, database = sys.argv[1:]
options = {} if database == "-" else {"database": database}
for form in (False, True):
    client = clickhouse_connect.get_client(
        host=host, port=int(port), username=user, password=password, form_encode_query_params=form, **options
    )
    print("tables", ",".join(row[0] for row in client.query("SHOW TABLES").result_rows))
    found = client.query(
        "SELECT count(), min(text) FROM messages WHERE conversation_id = {c:String} AND seq <= {n:Int64}",
        parameters={"c": "g-1", "n": 17},
    ).result_rows
    print("parameters", *found[0])
    rows = client.query(
        "SELECT seq, text, sent_at, mentions FROM messages WHERE conversation_id = 'g-1' ORDER BY seq LIMIT 10000"
    ).result_rows
    print("rows", len(rows), sum(row[0] for row in rows), rows[-1][2].isoformat())
    try:
        client.query("SELECT * FROM nowhere")
    except clickhouse_connect.driver.exceptions.DatabaseError as e:
        print("error", "nowhere" in str(e))
