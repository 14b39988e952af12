// The service that kitex serves, as bench.proto has it.
namespace go benchthrift

struct Item {
  1: i64 id
  2: string name
  3: list<string> tags
  4: double score
}

service Echo {
  Item Small(1: Item item)
  binary Bytes(1: binary data)
  binary Blob(1: i64 size)
}
