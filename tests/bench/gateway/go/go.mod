module modelpool.dev/bench/gateway

go 1.26
