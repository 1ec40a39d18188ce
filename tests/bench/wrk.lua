-- Posts the bodies of a file in turn, one JSON object a line, and prints what was measured as one line of JSON.
-- A second argument that is not 0: milliseconds that a connection rests for at most before each request.

local requests = {}
local position = 0

function init(arguments)
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, nil, body)
  end
  local rest = tonumber(arguments[2])
  if rest > 0 then
    function delay() -- wrk asks for it only where there is one
      return math.random(0, rest)
    end
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'MEASURED {"requests": %d, "microseconds": %d, "p50": %d, "p90": %d, "p99": %d, '
      .. '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(90), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
