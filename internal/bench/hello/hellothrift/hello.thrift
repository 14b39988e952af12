namespace go hellothrift

service Greeter {
  string Hello(1: string name)
}
