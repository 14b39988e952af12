using Go = import "/go.capnp";

@0xb3c8f0d94a5e2716;

$Go.package("benchcapnp");
$Go.import("github.com/yonder-rpc/yonder/internal/bench/benchcapnp");

struct Item {
  id @0 :Int64;
  name @1 :Text;
  tags @2 :List(Text);
  score @3 :Float64;
}

# Echo returns what it gets.
interface Echo {
  small @0 (item :Item) -> (item :Item);
  bytes @1 (data :Data) -> (data :Data);
}
