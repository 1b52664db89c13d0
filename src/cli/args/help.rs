//! Examples, as the help of a verb ends with them.

pub(super) const FLIP_HELP: &str = "Examples:
  switchback flip shop --to green --reason 'v42 is out'
  switchback flip shop --to green --dry-run     only say what would happen
  switchback flip shop --to @stable             by the part a version plays
  switchback flip shop --to green --exclusive   two versions never serve at the same time: new requests
                                                wait until the old version is empty
  switchback flip shop --to green --exclusive=writes --hold-timeout 30s
                                                the same for requests that may change something: GET, HEAD and
                                                OPTIONS go on meanwhile

An exclusive flip that cannot be made in time fails (status 3), and everything goes on where it was.";

pub(super) const TOP_HELP: &str = "Examples:
  switchback top                                every two seconds, until ctrl-c
  switchback top shop --every 10s               one service, and steadier figures
  switchback top -n 1 --json                    one picture for a script

A service's own line is what its users saw; its versions' lines are what these did, attempts that were made
good elsewhere included. ERRORS are answers from 500 on, and statuses of gRPC that are a server's doing.";

pub(super) const HOLD_HELP: &str = "Examples:
  switchback hold shop --timeout 30s && migrate && switchback release shop
  switchback hold shop --writes                 GET, HEAD and OPTIONS go on";

pub(super) const WEIGHTS_HELP: &str = "Examples:
  switchback weights shop green=5               5 % to green, the rest to the stable version
  switchback weights shop green=0.25%
  switchback weights shop blue=50 green=50";

pub(super) const RULES_HELP: &str = "Examples:
  switchback rules shop                         show them
  switchback rules shop 'header x-beta=yes -> green' 'client 10.0.0.0/8 -> green'
                                                these two, and no others; the first that fits decides
  switchback rules shop 'cookie team^=qa and query preview -> green'
                                                both have to be so: a cookie that begins with qa, and a parameter
  switchback rules shop --clear                 none any more
  switchback rules shop --json > rules.json; edit; switchback rules shop --set rules.json

A condition is header, cookie or query with NAME (with any value), NAME=VALUE or NAME^=BEGINNING; client with networks,
joined by commas; host with a name or *.name. A value with spaces stands in double quotes. Weights, ramps and freezes
leave the rules as they are; a flip takes them away, and a revert of it brings them back.";

pub(super) const RAMP_HELP: &str = "Examples:
  switchback ramp shop --to green --every 2m    1, 5, 25, 50, 100 %, two minutes each
  switchback ramp shop --to green --steps 0.25,1,10,100 --every 10m --supervise 10m
  switchback ramp shop --to green --steps 5,50,100
                                                each step waits for `switchback promote shop`
  switchback freeze shop && look && switchback resume shop

A step that is due waits while the version is not ready, or supervision suspects it; `status` says so. The ramp is
the proxy's: it goes on without this command, and in the next process. Who moves the weights otherwise ends it.
Exit status 0: finished; 1: taken back, or ended by another change; 3: it goes on; 4: reverted by supervision.";

pub(super) const RETIRE_HELP: &str = "Examples:
  switchback retire shop                        until nobody has come for half an hour, or for a day
  switchback retire shop --quiet 10m --for 4h --async
  switchback abort shop                         everybody is sent back at once, before it is over

Who is on it is told by the cookie that the proxy mints. Where each request has a coin of its own, nobody stays: the
others get everything at once, and what is in flight finishes, with nothing told to go before --for is over.
Exit status 0: over, and the version is safe to stop; 1: refused, or ended by another change; 3: it goes on; 4: reverted
by supervision.";

pub(super) const VERSIONS_HELP: &str = "Examples:
  switchback versions shop
  switchback versions add shop v42 --endpoint 127.0.0.1:9301 --endpoint 127.0.0.1:9302
  switchback versions rm shop v41";

pub(super) const ENDPOINTS_HELP: &str = "One machine after the other:
  switchback endpoints drain shop/blue 127.0.0.1:9001 --wait --timeout 5m
  systemctl restart shop@9001                   whatever it takes
  switchback endpoints add shop/blue 127.0.0.1:9001";

pub(super) const DRAIN_HELP: &str = "Examples:
  switchback drain shop/blue --wait --timeout 5m && systemctl stop shop-blue
  switchback drain --all                        what is left on versions that get no new requests

One endpoint: switchback endpoints drain shop/blue 127.0.0.1:9001 --wait";

pub(super) const EXPLAIN_HELP: &str = "Examples:
  switchback explain http://shop.example.com/cart -H 'x-beta: 1'
  switchback explain http://shop.example.com/cart -H 'baggage: switchback-release=v42' --client 10.0.0.7";

pub(super) const COMPLETIONS_HELP: &str = "Examples:
  switchback completions bash > /etc/bash_completion.d/switchback
  switchback completions zsh > ~/.zfunc/_switchback
  switchback completions fish > ~/.config/fish/completions/switchback.fish";

pub(super) const MAN_HELP: &str = "Examples:
  switchback man | man -l -
  switchback man --dir /usr/local/share/man/man1";

pub(super) const UPGRADE_HELP: &str = "Examples:
  switchback upgrade                            the same program, as it is installed now
  switchback upgrade --binary /opt/switchback-2/switchback";

pub(super) const ROLLOUT_HELP: &str = "Examples:
  switchback rollout shop --replace 10.0.0.1:80=10.0.1.1:80 --replace 10.0.0.2:80=10.0.1.2:80
                                                each old one drains, and is said to be safe to stop; each new
                                                one is waited for, and serves
  switchback rollout shop --batch 2 --hook 'ssh \"${SWITCHBACK_ENDPOINT%:*}\" systemctl restart shop'
                                                every endpoint is restarted in its place, two at a time
  switchback rollout shop --from blue --to green --surge
                                                endpoint by endpoint to another version: with k of n endpoints
                                                it has k/n of the traffic
  switchback rollout shop --follow              the rollout is the proxy's: it goes on without this command";

pub(super) const DEPLOY_HELP: &str = "Examples:
  switchback deploy shop --version v42 --endpoint 10.0.1.1:80 --endpoint 10.0.1.2:80
  switchback deploy shop --version v42 --endpoint 10.0.1.1:80 10.0.1.2:80 --rolling
  switchback deploy shop --version v42 --endpoint 10.0.1.1:80 --steps 1,5,25,100 --every 2m

The version is added, waited for, and gets all traffic, at once or in steps; then the old one is waited for. If it is not ready in
time, nothing is moved. The same command once more goes on where the first one was.";
