import { formatCidr, neverReachableCidrs, type Cidr } from '../core/network/addresses.ts';

/** The table in the gateway's namespace that this process owns. It exists as long as the process wants packets to pass, and longer. */
export const filterTable = 'paddock_egress';

/** On packets that the rules accepted for the proxy or the resolver; the gateway's own table lets nothing else of a guest's in. */
export const acceptedMark = 0x50;

export interface FilterPlaces {
  /** The host's end of its link to the gateway: what guests answer to it is none of this table's business. */
  readonly hostAddress: string;
  /** The guests' own range, which is never a destination, wherever it lies. */
  readonly subnet: Cidr;
  readonly proxyPort: number;
  readonly dnsPort: number;
}

/**
 * The rules, which never change while the process runs; only sets do. Installing them replaces the table and empties every set, in one
 * transaction. TCP goes to the proxy when the destination could be allowed. What is refused is simply let through to the gateway, where
 * no destination exists: it is reset before a handshake, as is everything when the proxy is dead (`tproxy` without a listener does not
 * match, and the rule behind it refuses).
 */
export function filterRules({ hostAddress, subnet, proxyPort, dnsPort }: FilterPlaces): string {
  const never = neverReachableCidrs.some((range) => range.base <= subnet.base && subnet.base < range.base + 2 ** (32 - range.prefix)) ? neverReachableCidrs : [...neverReachableCidrs, subnet];
  const opening = 'tcp flags & (fin|syn|rst|ack) == syn';
  return `
table inet ${filterTable}
delete table inet ${filterTable}
table inet ${filterTable} {
  set admitted { type ipv4_addr; }
  set open { type ipv4_addr; }
  set allowed { type ipv4_addr . ipv4_addr; flags interval; }
  set denied { type ipv4_addr . ipv4_addr; flags interval; }
  set synthetic { type ipv4_addr . ipv4_addr; }
  set own { type ipv4_addr; }
  set never { type ipv4_addr; flags interval; elements = { ${never.map(formatCidr).join(', ')} }
  }
  set connects { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 10s; }
  set questions { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 10s; }
  set refusals { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 10s; }
  set refused { type ipv4_addr . ipv4_addr . inet_service; size 8192; flags dynamic,timeout; timeout 5s; }

  chain untracked_in {
    type filter hook prerouting priority raw; policy accept;
    iifname { "lo", "host0" } accept
    ip daddr ${hostAddress} accept
    meta l4proto tcp notrack
  }
  chain untracked_out {
    type filter hook output priority raw; policy accept;
    oifname { "lo", "host0" } accept
    meta l4proto tcp notrack
  }
  chain judge {
    type filter hook prerouting priority mangle; policy drop;
    iifname { "lo", "host0" } accept
    ip daddr ${hostAddress} accept
    ip saddr @admitted meta l4proto { tcp, udp } th dport 53 goto resolve
    # Told off by the gateway's own table, so that programs fall back to TCP, or ask again, at once.
    meta l4proto udp accept
    meta l4proto != tcp drop
    ip saddr != @admitted accept
    ip saddr . ip daddr @synthetic goto proxied
    ip daddr @never goto refuse
    ip daddr @own goto refuse
    ip saddr . ip daddr @allowed goto proxied
    ip saddr . ip daddr @denied goto refuse
    ip saddr @open goto proxied
    goto refuse
  }
  chain resolve {
    meta l4proto udp update @questions { ip saddr limit rate over 1000/second burst 2000 packets } drop
    meta l4proto udp meta mark set ${acceptedMark} accept
    meta l4proto tcp tproxy ip to :${dnsPort} meta mark set ${acceptedMark} accept
    accept
  }
  chain proxied {
    ${opening} update @connects { ip saddr limit rate over 1000/second burst 5000 packets } goto refuse
    meta l4proto tcp tproxy ip to :${proxyPort} meta mark set ${acceptedMark} accept
    goto refuse
  }
  chain refuse {
    ${opening} update @refusals { ip saddr limit rate over 200/second burst 400 packets } accept
    ${opening} update @refused { ip saddr . ip daddr . tcp dport counter } accept
    accept
  }
  chain questions_to_resolver {
    type nat hook prerouting priority dstnat; policy accept;
    iifname != { "lo", "host0" } meta mark ${acceptedMark} meta l4proto udp redirect to :${dnsPort}
  }
}
`;
}
