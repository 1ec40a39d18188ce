module modelpool.dev/bench/streamload

go 1.26
