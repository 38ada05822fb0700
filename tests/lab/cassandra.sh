#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# cassandra.sh: real Apache Cassandra nodes for the tests, from the jars on Maven Central.
# A node lives on a loopback address, or in a network namespace with an address of its own.
#
#   cassandra.sh install [VERSION]         fetch the jars
#   cassandra.sh warm                      make the class-data archive that halves a start (once for each version)
#   cassandra.sh start NAME [IP] [OPTIONS] start a node in the background; a stopped one keeps its data, and
#                                          without IP its address and options as well
#       --netns NS     run it in that network namespace (a name under /run/netns); IP may then be any address
#       --cluster C    cluster name (default: NAME without trailing digits)
#       --seed IP      join that node's cluster (default: be a seed)
#       --auth         passwords and permissions; first user cassandra/cassandra
#       --tls MODE     client TLS: required | optional (plain as well) | mutual | optional-mutual
#       --set "K: V"   a cassandra.yaml line, replaces the generated one (repeat)
#       --version V    Cassandra version (default $LAB_VERSION)
#   cassandra.sh wait NAME [SECONDS]       until it takes CQL, and with --auth until a login can work
#   cassandra.sh stop NAME [--kill]        clean stop by recorded pid; --kill: SIGKILL
#   cassandra.sh pause NAME | resume NAME  SIGSTOP and SIGCONT: a node that hangs
#   cassandra.sh running NAME              exit status 0 when it does, paused or not
#   cassandra.sh wipe NAME                 remove a stopped node's data
#   cassandra.sh status                    what runs
#   cassandra.sh nodetool NAME ARGS...     nodetool against that node
#   cassandra.sh tls [IP]                  make the lab CA, a client and a server certificate
#   cassandra.sh up [OPTIONS] [-- OPTIONS] origin1 (127.0.1.1), origin2, target1 (127.0.2.1); after -- target only
#   cassandra.sh down                      stop every node
#
# A process counts as the node only while the recorded pid carries -Dlab.node=<its directory>, so that a
# recycled pid is never signalled. The JVM flags and the tuning each have their reason beside them.
# Environment: LAB_HOME (jars), LAB_RUN (data), LAB_VERSION, LAB_HEAP, LAB_JIT (c1 | full: for throughput).
set -euo pipefail
LAB_HOME=${LAB_HOME:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/cqlferry-lab/cassandra}
LAB_RUN=${LAB_RUN:-/tmp/cqlferry-lab-$(id -u)}
LAB_VERSION=${LAB_VERSION:-5.0.9}
LAB_HEAP=${LAB_HEAP:-640m}
PORT=9042
self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")

die() { echo "cassandra.sh: $*" >&2; exit 1; }

# ---------------------------------------------------------------- a node's directory and process
# use NAME: sets NODE and DIR. load: its recorded settings (IP, JMX, VERSION, AUTH, NETNS, OPTS).
use() {
	[[ ${1:-} =~ ^[a-z][a-z0-9-]{0,30}$ ]] || die "a node name is lower-case letters, digits, '-'; not '${1:-}'"
	NODE=$1 DIR=$LAB_RUN/$1
}
load() { [ -r "$DIR/settings" ] || die "no node '$NODE' in $LAB_RUN"; . "$DIR/settings"; }

running() {
	PID=$(cat "$DIR/pid" 2>/dev/null) || return 1
	[ -n "$PID" ] && { tr '\0' '\n' <"/proc/$PID/cmdline"; } 2>/dev/null | grep -qxF -- "-Dlab.node=$DIR"
}

# enter: sets ENTER, the words that put a command into the node's namespace. An array and no function,
# so that a command started with & is the process itself and $! its pid.
enter() { ENTER=(); [ -z "${NETNS:-}" ] || ENTER=(nsenter --net="/run/netns/$NETNS" --); }

# ---------------------------------------------------------------- jars
install_jars() {
	local v=$1 d=$LAB_HOME/$1
	[ -e "$d/lib/.done" ] && return
	command -v mvn >/dev/null || die "no mvn: run tests/lab/deps.sh"
	echo "cassandra.sh: fetching Cassandra $v"
	mkdir -p "$d"
	cat >"$d/pom.xml" <<-XML
		<project xmlns="http://maven.apache.org/POM/4.0.0">
		  <modelVersion>4.0.0</modelVersion>
		  <groupId>cqlferry</groupId><artifactId>lab-cassandra</artifactId><version>$v</version><packaging>pom</packaging>
		  <dependencies>
		    <dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>$v</version></dependency>
		  </dependencies>
		</project>
	XML
	mvn -q -B -Dstyle.color=never -f "$d/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$d/lib" </dev/null
	find "$d/lib" \( -name '*-osx-*' -o -name '*-windows-*' \) -delete
	touch "$d/lib/.done"
}

# ---------------------------------------------------------------- certificates
sign() { # sign FILE SAN: a key and certificate under the lab CA, as PEM and PKCS#12
	openssl req -newkey rsa:2048 -nodes -subj "/CN=lab $1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
	openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out "$1.pem" \
		-extfile <(echo "subjectAltName=$2") 2>/dev/null
	openssl pkcs12 -export -name "$1" -in "$1.pem" -inkey "$1.key" -certfile ca.pem -passout pass:labpass -out "$1.p12"
}
certificates() (
	mkdir -p "$LAB_RUN/tls" && cd "$LAB_RUN/tls"
	if ! [ -e trust.p12 ]; then
		openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=lab CA" -keyout ca.key -out ca.pem 2>/dev/null
		sign client DNS:client
		keytool -importcert -noprompt -alias ca -file ca.pem -keystore trust.p12 -storetype PKCS12 -storepass labpass 2>/dev/null
	fi
	[ -z "${1:-}" ] || [ -e "$1.p12" ] || sign "$1" "IP:$1,DNS:db.cqlferry.test"
)

# ---------------------------------------------------------------- configuration
# phi_convict_threshold: the highest. Two JVMs that share two cores with a test may be silent for seconds, and are not down.
configuration() { # configuration IP CLUSTER SEED AUTH TLS EXTRA...
	local ip=$1 cluster=$2 seed=$3 auth=$4 tls=$5 out=$DIR/cassandra.yaml line
	shift 5
	{
		cat <<-YAML
			cluster_name: $cluster
			partitioner: org.apache.cassandra.dht.Murmur3Partitioner
			num_tokens: 4
			endpoint_snitch: GossipingPropertyFileSnitch
			listen_address: $ip
			rpc_address: $ip
			storage_port: 7000
			native_transport_port: $PORT
			seed_provider: [{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "$seed"}]}]
			data_file_directories: [$DIR/data]
			commitlog_directory: $DIR/commitlog
			hints_directory: $DIR/hints
			saved_caches_directory: $DIR/caches
			cdc_raw_directory: $DIR/cdc
			commitlog_sync: periodic
			commitlog_sync_period: 10000ms
			commitlog_total_space: 256MiB
			commitlog_segment_size: 16MiB
			memtable_heap_space: 96MiB
			memtable_offheap_space: 64MiB
			key_cache_size: 8MiB
			concurrent_reads: 8
			concurrent_writes: 8
			concurrent_counter_writes: 8
			phi_convict_threshold: 16
			auto_snapshot: false
			user_defined_functions_enabled: true
			materialized_views_enabled: true
		YAML
		[ "$auth" = 0 ] || printf '%s\n' 'authenticator: PasswordAuthenticator' 'authorizer: CassandraAuthorizer' \
			'role_manager: CassandraRoleManager'
		if [ -n "$tls" ]; then
			certificates "$ip"
			local optional=false mutual=false t=$LAB_RUN/tls
			[[ $tls != optional* ]] || optional=true
			[[ $tls != *mutual ]] || mutual=true
			echo "client_encryption_options: {enabled: true, optional: $optional, require_client_auth: $mutual," \
				"store_type: PKCS12, keystore: $t/$ip.p12, keystore_password: labpass," \
				"truststore: $t/trust.p12, truststore_password: labpass}"
		fi
	} >"$out"
	for line in "$@"; do
		sed -i "/^${line%%:*}:/d" "$out"
		echo "$line" >>"$out"
	done
	printf 'dc=dc1\nrack=rack1\n' >"$DIR/cassandra-rackdc.properties"
	cat >"$DIR/logback.xml" <<-XML
		<configuration>
		  <appender name="FILE" class="ch.qos.logback.core.FileAppender">
		    <file>$DIR/system.log</file>
		    <encoder><pattern>%-5level [%thread] %date{ISO8601} %logger{0}:%line - %msg%n</pattern></encoder>
		  </appender>
		  <root level="INFO"><appender-ref ref="FILE"/></root>
		</configuration>
	XML
}

# JDK-internal packages that Cassandra reflects into on Java 17.
JPMS=()
for p in java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/java.lang.ref java.base/sun.nio.ch \
	java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server \
	java.sql/java.sql jdk.attach/sun.tools.attach jdk.unsupported/sun.misc; do
	JPMS+=(--add-exports "$p=ALL-UNNAMED")
done
for p in java.io java.lang java.lang.module java.lang.reflect java.nio java.util java.util.concurrent \
	java.util.concurrent.atomic jdk.internal.loader jdk.internal.math jdk.internal.module jdk.internal.ref \
	jdk.internal.reflect jdk.internal.util.jar sun.nio.ch; do
	JPMS+=(--add-opens "java.base/$p=ALL-UNNAMED")
done
JPMS+=(--add-opens jdk.management/com.sun.management.internal=ALL-UNNAMED)

launch() { # launch [ARCHIVE-TO-WRITE]: the JVM of the node that use and load named
	local home=$LAB_HOME/$VERSION lib=$LAB_HOME/$VERSION/lib jamm archive=() jit=()
	jamm=$(echo "$lib"/jamm-*.jar)
	# The archive wants a class path of jars alone, and these two flags because jamm is an agent.
	if [ -n "${1:-}" ]; then
		archive=(-XX:ArchiveClassesAtExit="$1")
	elif [ -e "$home/app.jsa" ]; then
		archive=(-XX:SharedArchiveFile="$home/app.jsa")
	fi
	[ ${#archive[@]} = 0 ] || archive+=(-XX:+UnlockDiagnosticVMOptions -XX:+AllowArchivingWithJavaAgent)
	# A node of a short test never earns C2 back. For throughput Cassandra's own collector: the serial one stops every thread but its own.
	if [ "${LAB_JIT:-c1}" = full ]; then jit=(-XX:+UseG1GC -XX:MaxGCPauseMillis=300); else jit=(-XX:TieredStopAtLevel=1 -XX:+UseSerialGC); fi
	# A joining node gives its seed this long (in whole seconds) to answer, and waits as long twice more; 100 ms were
	# enough on a quiet machine only.
	local ring_delay=100
	[ "$SEED" = "$IP" ] || ring_delay=2100
	local tuning=(
		-Dcassandra.skip_wait_for_gossip_to_settle=0  # nobody else is there to settle with
		-Dcassandra.ring_delay_ms=$ring_delay
		-Dcassandra.gossip_quarantine_delay_ms=60000  # else twice ring_delay, after half of which a seed forgets who is still joining
		-Dcassandra.superuser_setup_delay_ms=0
		-Dcassandra.shutdown_announce_in_ms=100
		-Dcassandra.memtable.row_overhead_size=180    # else 2 s of every start go to measuring it
		-Dcassandra.auth_bcrypt_gensalt_log2_rounds=4 # else each login takes 100 ms of CPU, and drivers log in often
	)
	rm -f "$DIR/system.log"
	date +%s%3N >"$DIR/started"
	enter
	"${ENTER[@]}" setsid java -Dlab.node="$DIR" -javaagent:"$jamm" "${JPMS[@]}" \
		-Xms192m -Xmx"$LAB_HEAP" -Xss256k -XX:MaxDirectMemorySize=256m -XX:+PerfDisableSharedMem \
		-XX:+ExitOnOutOfMemoryError -Djdk.attach.allowAttachSelf=true -Dio.netty.tryReflectionSetAccessible=true \
		-Djava.net.preferIPv4Stack=true -Djava.io.tmpdir="$DIR" -Dcassandra-foreground=yes \
		-Dcassandra.config="file://$DIR/cassandra.yaml" -Dcassandra-rackdc.properties="file://$DIR/cassandra-rackdc.properties" \
		-Dlogback.configurationFile="$DIR/logback.xml" -Dcassandra.storagedir="$DIR" -Dcassandra.logdir="$DIR" \
		-Dcassandra.triggers_dir="$DIR/triggers" -Dcassandra.jmx.local.port="$JMX" \
		"${tuning[@]}" "${jit[@]}" "${archive[@]}" -cp "$lib/*" org.apache.cassandra.service.CassandraDaemon \
		</dev/null >"$DIR/out.log" 2>&1 9>&- &
	echo $! >"$DIR/pid"
}

start() {
	use "$1"; shift
	! running || die "$NODE already runs (pid $PID)"
	if [ $# = 0 ]; then
		load; launch; return
	fi
	local ip=$1 cluster=${NODE%%[0-9]*} seed=$1 auth=0 tls= extra=() c d
	NETNS= VERSION=$LAB_VERSION
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		--auth) auth=1; shift; continue ;;
		--netns) NETNS=$2 ;;
		--cluster) cluster=$2 ;;
		--seed) seed=$2 ;;
		--version) VERSION=$2 ;;
		--set) extra+=("$2") ;;
		--tls) [[ $2 =~ ^(required|optional|mutual|optional-mutual)$ ]] || die "--tls required|optional|mutual|optional-mutual, not '$2'"; tls=$2 ;;
		*) die "unknown option $1" ;;
		esac
		shift 2
	done
	[[ -n $NETNS || $ip == 127.* ]] || die "an address outside 127.0.0.0/8 needs --netns"
	[ -z "$NETNS" ] || [ -e "/run/netns/$NETNS" ] || die "no network namespace '$NETNS'"
	install_jars "$VERSION"
	mkdir -p "$DIR/triggers"
	IFS=. read -r _ _ c d <<<"$ip"
	JMX=$((17000 + c * 16 + d)) IP=$ip SEED=$seed
	printf '%s=%q\n' IP "$ip" JMX "$JMX" VERSION "$VERSION" AUTH "$auth" NETNS "$NETNS" SEED "$seed" >"$DIR/settings"
	configuration "$ip" "$cluster" "$seed" "$auth" "$tls" "${extra[@]}"
	launch
}

wait_ready() {
	use "$1"; load
	local end=$((SECONDS + ${2:-180})) log=$DIR/system.log took
	enter
	until grep -q 'Starting listening for CQL clients' "$log" 2>/dev/null &&
		"${ENTER[@]}" timeout 2 bash -c ": <>/dev/tcp/$IP/$PORT" 2>/dev/null &&
		# The first node of a cluster makes its superuser a moment after it listens.
		{ [ "$AUTH" = 0 ] || [ "$SEED" != "$IP" ] || [ -e "$DIR/superuser" ] || grep -q 'Created default superuser' "$log"; }; do
		running || { tail -n 15 "$DIR/out.log" "$log" >&2 || true; die "$NODE died while it started"; }
		((SECONDS < end)) || die "$NODE is not ready after ${2:-180} s: see $log"
		sleep 0.1
	done
	touch "$DIR/superuser"
	took=$(($(date +%s%3N) - $(cat "$DIR/started")))
	echo "$NODE: Cassandra $VERSION on $IP:$PORT, ready after $((took / 1000)).$((took / 100 % 10)) s"
}

stop() {
	use "$1"
	local i sig=TERM
	running || { rm -f "$DIR/pid"; return 0; }
	[ "${2:-}" != --kill ] || sig=KILL
	kill -CONT "$PID" 2>/dev/null || true
	kill -$sig "$PID"
	for ((i = 0; i < 300; i++)); do
		running || { rm -f "$DIR/pid"; return 0; }
		sleep 0.1
	done
	echo "cassandra.sh: $NODE did not stop in 30 s: killed" >&2
	kill -KILL "$PID"; rm -f "$DIR/pid"
}

warm() { # a node in a network namespace of its own, started and stopped once
	local jsa=$LAB_HOME/$LAB_VERSION/app.jsa log
	[ -e "$jsa" ] && return
	install_jars "$LAB_VERSION"
	[ -n "${LAB_WARM_INSIDE:-}" ] || echo "cassandra.sh: making the class-data archive of $LAB_VERSION (once)"
	if [ "$(id -u)" = 0 ] && [ -z "${LAB_WARM_INSIDE:-}" ]; then
		LAB_WARM_INSIDE=1 unshare --net --pid --fork --kill-child --mount-proc "$self" warm && return
		echo "cassandra.sh: no archive; nodes start slower" >&2
		return 0
	fi
	[ -z "${LAB_WARM_INSIDE:-}" ] || ip link set lo up
	LAB_RUN=$(mktemp -d "${TMPDIR:-/tmp}/cqlferry-warm.XXXXXX")
	trap 'stop warm1 --kill; rm -rf "$LAB_RUN"' EXIT
	use warm1
	mkdir -p "$DIR/triggers"
	IP=127.0.8.1 JMX=17129 VERSION=$LAB_VERSION AUTH=1 NETNS= SEED=127.0.8.1
	printf '%s=%q\n' IP $IP JMX $JMX VERSION "$VERSION" AUTH 1 NETNS '' SEED $SEED >"$DIR/settings"
	configuration $IP warm $SEED 1 ''
	launch "$jsa.new"
	log=$(wait_ready warm1 240) || die "the node for the archive did not start"
	stop warm1
	[ -s "$jsa.new" ] || die "Java wrote no archive: $DIR/out.log"
	mv "$jsa.new" "$jsa"
}

nodes() { local s; for s in "$LAB_RUN"/*/settings; do [ ! -e "$s" ] || basename "$(dirname "$s")"; done; }

status() {
	local n
	for n in $(nodes); do
		use "$n"; load
		if running; then
			echo "$n up $IP Cassandra $VERSION pid $PID RSS $(awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$PID/status") MiB"
		else
			echo "$n down"
		fi
	done
}

nodetool() {
	use "$1"; load; shift
	[ -e "$LAB_RUN/quiet.xml" ] || echo '<configuration><root level="OFF"/></configuration>' >"$LAB_RUN/quiet.xml"
	enter
	"${ENTER[@]}" java "${JPMS[@]}" -javaagent:"$(echo "$LAB_HOME/$VERSION"/lib/jamm-*.jar)" -Xmx128m -XX:TieredStopAtLevel=1 \
		-Dcassandra.config="file://$DIR/cassandra.yaml" -Dcassandra.storagedir="$DIR" -Dlogback.configurationFile="$LAB_RUN/quiet.xml" \
		-cp "$LAB_HOME/$VERSION/lib/*" org.apache.cassandra.tools.NodeTool -h 127.0.0.1 -p "$JMX" "$@"
}

up() {
	local all=() target=()
	while [ $# -gt 0 ]; do
		if [ "$1" = -- ]; then shift; target=("$@"); break; fi
		all+=("$1"); shift
	done
	start origin1 127.0.1.1 "${all[@]}"
	start target1 127.0.2.1 "${all[@]}" "${target[@]}"
	wait_ready origin1
	start origin2 127.0.1.2 --seed 127.0.1.1 "${all[@]}" # only now: its bootstrap streams what the first one made
	wait_ready target1
	wait_ready origin2
}

cmd=${1:-help}
[ $# = 0 ] || shift
case $cmd in
install) install_jars "${1:-$LAB_VERSION}" ;;
warm) warm ;;
start | stop | status | nodetool | up) mkdir -p "$LAB_RUN"; "$cmd" "$@" ;;
wait) wait_ready "$@" ;;
pause) use "$1"; running || die "$NODE does not run"; kill -STOP "$PID" ;;
resume) use "$1"; running || die "$NODE does not run"; kill -CONT "$PID" ;;
running) use "$1"; running ;;
wipe) use "$1"; ! running || die "$NODE runs (pid $PID)"; rm -rf "$DIR" ;;
tls) certificates "$@" ;;
down) for n in $(nodes); do stop "$n"; done ;;
*) sed -n '3,/^# Environment/s/^# \{0,1\}//p' "$self"; [ "$cmd" = help ] ;;
esac
