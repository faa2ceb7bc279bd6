//! Names looked up, and whether the answer can be believed (DNSSEC, RFC 4035 §5).
//!
//! In: a name and a type of record. Out: a [`Found`], or why there is none. Answers about the Internet's mail servers
//! are validated from the root's keys; an answer that ought to be signed and is not correctly so is a failed look-up. The
//! names that an administrator wrote are his own network's and are asked for as any program does, with search domains.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use self::bailiwick::Connections;
use self::resolv_conf::ResolvConf;
use self::wildcard::SecondLook;
use crate::config::{Dns, Resolvers};

pub(super) mod bailiwick;
mod opt_out;
mod resolv_conf;
pub(super) mod wildcard;

/// Looks names up.
pub(crate) struct Names {
    /// What is asked now; a look-up ends with what it began with.
    resolver: RwLock<Arc<Both>>,
    /// None where nothing is validated.
    anchors: Option<Arc<TrustAnchors>>,
    /// What says whom to ask, where the configuration does not.
    system: Option<Mutex<ResolvConf>>,
}

/// The resolvers.
struct Both {
    plain: TokioResolver,
    /// None where nothing is validated.
    validating: Option<(Resolver<Connections>, SecondLook)>,
    servers: Vec<SocketAddr>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("servers", &self.now().servers).finish_non_exhaustive()
    }
}

/// What a look-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Data of the type asked for, at least one unless it was an alias only.
    pub(crate) data: Vec<RData>,
    /// Everything up to the data is signed, from the root on.
    pub(crate) secure: bool,
    /// The name is an alias of this one (CNAME).
    pub(crate) alias: Option<String>,
    /// The name's own alias record is signed, whatever holds for what it leads to.
    pub(crate) alias_secure: bool,
}

/// Why nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// There is no such name.
    NoSuchName,
    /// There is the name, without such data.
    NoData,
    /// The answer is not correctly signed.
    Bogus,
    /// No usable answer.
    Failed,
}

impl NotFound {
    /// Whether it is certain that there is no such data.
    pub(crate) fn is_certain(self) -> bool {
        matches!(self, Self::NoSuchName | Self::NoData)
    }
}

impl Names {
    /// # Errors
    /// What is wrong with the resolvers or the trust anchor.
    pub(crate) fn new(dns: &Dns) -> Result<Self, String> {
        Self::with_system(dns, Path::new(resolv_conf::SYSTEM))
    }

    fn with_system(dns: &Dns, system: &Path) -> Result<Self, String> {
        let anchors = match &dns.trust_anchor {
            Some(path) => trust_anchors(path)?,
            None => TrustAnchors::default(),
        };
        let anchors = dns.dnssec.then(|| Arc::new(anchors));
        let of = |servers| ResolverConfig::from_parts(None, Vec::new(), servers);
        let (servers, system) = match &dns.resolvers {
            Resolvers::System => (Vec::new(), Some(Mutex::new(ResolvConf::new(system)))),
            Resolvers::Servers(servers) => (servers.iter().map(name_server).collect(), None),
        };
        let both = Both::new(of(servers), ResolverOpts::default(), anchors.as_ref())?;
        let names = Self { resolver: RwLock::new(Arc::new(both)), anchors, system };
        names.follow();
        Ok(names)
    }

    /// Asks whom the system's file names, where it says something else than before; says whether that is so. As long as
    /// nothing can be made of the file, those are asked that it named last.
    pub(crate) fn follow(&self) -> bool {
        let Some(system) = &self.system else { return false };
        let mut system = system.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(changed) = system.changed() else { return false };
        let path = system.path().display();
        let anchors = self.anchors.as_ref();
        let both = changed.and_then(|(config, options)| Both::new(config, options, anchors));
        match both {
            Ok(both) => {
                let servers = &both.servers;
                tracing::info!(%path, ?servers, "these resolvers are asked from now on");
                *self.resolver.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(both);
                true
            }
            Err(error) if self.now().servers.is_empty() => {
                tracing::warn!(%path, %error, "no resolver is known: names cannot be looked up until it names one");
                false
            }
            Err(error) => {
                tracing::warn!(%path, %error, "names no resolver: those that it named before are asked");
                false
            }
        }
    }

    fn now(&self) -> Arc<Both> {
        Arc::clone(&self.resolver.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the resolvers pass on what is needed to validate their answers; `false` only where they know the Internet's
    /// root and do not.
    pub(crate) async fn is_able_to_validate(&self) -> bool {
        match self.look_up(".", RecordType::SOA).await {
            Ok(found) => found.secure || self.anchors.is_none(),
            Err(NotFound::Bogus) => self.plain().lookup(".", RecordType::SOA).await.is_err(),
            Err(_) => true,
        }
    }

    /// Whether the resolvers answer: about the root, or about a domain, where they serve a network of its own and know no root.
    pub(crate) async fn answer_about(&self, domain: &str) -> bool {
        let is_answered = async |name: &str, kind| {
            !matches!(self.look_up(name, kind).await, Err(NotFound::Failed))
        };
        tokio::select! {
            true = is_answered(".", RecordType::SOA) => true,
            true = is_answered(domain, RecordType::MX) => true,
            else => false,
        }
    }

    /// Whom it asks.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        self.now().servers.clone()
    }

    /// What looks names up without validating; for one task only, since others may be asked after that.
    pub(crate) fn plain(&self) -> TokioResolver {
        self.now().plain.clone()
    }

    /// The addresses of a name that an administrator wrote.
    ///
    /// # Errors
    /// [`NotFound`].
    pub(crate) async fn addresses_of_ours(&self, name: &str) -> Result<Vec<IpAddr>, NotFound> {
        let found = self.plain().lookup_ip(name).await.map_err(|error| not_found(&error))?;
        Ok(found.iter().collect())
    }

    /// The addresses of a whole name, of both families, and what the answers showed about the name.
    ///
    /// # Errors
    /// [`NotFound`] where neither family has an address.
    pub(crate) async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Found), NotFound> {
        let (v4, v6) =
            tokio::join!(self.look_up(name, RecordType::A), self.look_up(name, RecordType::AAAA));
        let found = match (v4, v6) {
            (Ok(v4), Ok(v6)) => v4.and(v6)?,
            // The family that there is must do: a broken one does not cost the delivery.
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
            (Err(one), Err(other)) => return Err(if one.is_certain() { other } else { one }),
        };
        let address = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        Ok((found.data.iter().filter_map(address).collect(), found))
    }

    /// The data of one type that a whole name has.
    ///
    /// # Errors
    /// [`NotFound`].
    pub(crate) async fn look_up(&self, name: &str, kind: RecordType) -> Result<Found, NotFound> {
        let mut name = Name::from_ascii(name).map_err(|_| NotFound::NoSuchName)?;
        name.set_fqdn(true);
        // RFC 6761 §6.3: whoever asks for it means himself, and is nobody that others could name.
        if name.iter().next_back().is_some_and(|top| top.eq_ignore_ascii_case(b"localhost")) {
            return Err(NotFound::NoSuchName);
        }
        let now = self.now();
        let Some((validating, second_look)) = &now.validating else {
            let answer = now.plain.lookup(name.clone(), kind).await;
            let answer = answer.map_err(|error| not_found(&error))?;
            return read(answer.answers(), &name, kind, false);
        };
        let error = match validating.lookup(name.clone(), kind).await {
            Ok(answer) => match read(answer.answers(), &name, kind, true) {
                // Out of the cache perhaps, and garbled once long ago.
                Err(NotFound::Bogus) => NotFound::Bogus,
                other => return other,
            },
            Err(error) => not_found(&error),
        };
        match error {
            NotFound::Bogus => match second_look.answers(&name, kind).await {
                // An alias that leads nowhere proves nothing.
                Some(records) => read(&records, &name, kind, true).map_err(|_| NotFound::Bogus),
                None => Err(NotFound::Bogus),
            },
            other => Err(other),
        }
    }
}

impl Both {
    fn new(
        config: ResolverConfig,
        options: ResolverOpts,
        anchors: Option<&Arc<TrustAnchors>>,
    ) -> Result<Self, String> {
        let servers = config.name_servers().iter().filter_map(address).collect();
        let validating = anchors.map(|anchors| validating(&config, options.clone(), anchors));
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let plain = builder.with_options(options).build().map_err(|error| unusable(&error))?;
        Ok(Self { plain, validating: validating.transpose()?, servers })
    }
}

impl Found {
    /// Both families together: as secure as the less secure one.
    ///
    /// # Errors
    /// [`NotFound::Bogus`] where the name leads to two, both signed: which one's TLSA records count is not known.
    fn and(mut self, mut other: Self) -> Result<Self, NotFound> {
        if self.alias != other.alias {
            if self.secure && other.secure {
                return Err(NotFound::Bogus);
            }
            // Those of the name itself count, where so much is signed.
            self.alias = self.alias.or(other.alias);
            self.secure = false;
        }
        self.secure &= other.secure;
        self.alias_secure &= other.alias_secure;
        self.data.append(&mut other.data);
        Ok(self)
    }
}

/// Follows the aliases of an answer from the name that was asked for; what belongs to no name on the way is not looked at.
pub(super) fn read(
    records: &[Record],
    name: &Name,
    kind: RecordType,
    validated: bool,
) -> Result<Found, NotFound> {
    let mut found = Found { secure: validated, ..Found::default() };
    let mut owner = name;
    for _ in 0..=ALIASES_MAX {
        let mut next = None;
        for record in records.iter().filter(|record| record.name == *owner) {
            let record_is_secure = match record.proof {
                Proof::Secure => true,
                Proof::Insecure => false,
                // RFC 7672 §2.1.1: what could not be found out is no "insecure".
                Proof::Bogus | Proof::Indeterminate if validated => return Err(NotFound::Bogus),
                Proof::Bogus | Proof::Indeterminate => false,
            };
            // Without any data; not the same as no record, which would turn DANE off. Among texts others may stand.
            let is_of_use = |of| of == RecordType::CNAME || of == kind && kind != RecordType::TXT;
            if matches!(record.data, RData::Update0(of) if is_of_use(of)) {
                return Err(if validated { NotFound::Bogus } else { NotFound::Failed });
            }
            if record.record_type() == kind {
                found.secure &= record_is_secure;
                found.data.push(record.data.clone());
            } else if let RData::CNAME(target) = &record.data {
                found.secure &= record_is_secure;
                if found.alias.is_none() {
                    found.alias_secure = validated && record_is_secure;
                }
                next = Some(&target.0);
            }
        }
        match next {
            _ if !found.data.is_empty() => return Ok(found),
            Some(target) => {
                found.alias = Some(text(target));
                owner = target;
            }
            // An answer about other names only denies nothing, nor does an alias alone: that would take a proof.
            None if validated => return Err(NotFound::Bogus),
            None => return Err(NotFound::NoData),
        }
    }
    Err(NotFound::Failed)
}

/// A name as text, lower case, without the last dot; the root is `.`.
pub(crate) fn text(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => text,
    }
}

/// Why a resolver of the library's own gave nothing.
pub(super) fn not_found(error: &NetError) -> NotFound {
    let code = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        // Denied without a proof, where none can be had: an insecure zone.
        NetError::Dns(DnsError::Nsec { proof: Proof::Insecure, response, .. }) => {
            response.response_code
        }
        NetError::Dns(DnsError::Nsec { .. } | DnsError::DnssecBogus) => return NotFound::Bogus,
        _ => return NotFound::Failed,
    };
    match code {
        ResponseCode::NXDomain => NotFound::NoSuchName,
        ResponseCode::NoError => NotFound::NoData,
        _ => NotFound::Failed,
    }
}

fn validating(
    config: &ResolverConfig,
    options: ResolverOpts,
    anchors: &Arc<TrustAnchors>,
) -> Result<(Resolver<Connections>, SecondLook), String> {
    let options = validating_options(options);
    let looking = |connections| SecondLook::new(config, &options, Arc::clone(anchors), connections);
    let denials = Arc::new(looking(Connections::default())?);
    let connections = Connections::with_denials(Arc::new(move |name| {
        let denials = Arc::clone(&denials);
        Box::pin(async move { denials.denial(&name).await })
    }));
    let second_look = looking(connections.clone())?;
    let resolver = Resolver::builder_with_config(config.clone(), connections)
        .with_options(options.clone())
        .with_trust_anchor(Arc::clone(anchors))
        .build()
        .map_err(|error| unusable(&error))?;
    Ok((resolver, second_look))
}

fn validating_options(mut options: ResolverOpts) -> ResolverOpts {
    // Signatures are asked for with EDNS (RFC 3225 §3), which resolv.conf leaves out unless told otherwise.
    options.edns0 = true;
    // The hosts file is no part of the Internet's names, and nobody signed it.
    options.use_hosts_file = ResolveHosts::Never;
    options.validate = true;
    options
}

fn unusable(error: &NetError) -> String {
    format!("[dns]: {error}")
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
    server
}

/// Where a server is asked.
fn address(server: &NameServerConfig) -> Option<SocketAddr> {
    Some(SocketAddr::new(server.ip, server.connections.first()?.port))
}

fn trust_anchors(path: &Path) -> Result<TrustAnchors, String> {
    let unusable = |why: String| format!("[dns] trust_anchor: {}: {why}", path.display());
    let anchors = TrustAnchors::from_file(path).map_err(|error| {
        unusable(format!("{error}: it holds DNSKEY records of the root, as in a zone file"))
    })?;
    if anchors.is_empty() {
        return Err(unusable("no DNSKEY record of the root is in it".to_owned()));
    }
    Ok(anchors)
}

/// What to do where the resolvers are not able to validate.
pub(crate) const NOT_ABLE: &str = "the resolvers do not pass on DNSSEC signatures, so mail to MX records waits: name others \
                                   that do with [dns] resolvers, or write [dns] dnssec = \"off\"";
/// REQUIREMENTS K13: the longest chain of aliases.
const ALIASES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, CNAME, TXT};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn alias(owner: &str, target: &str, proof: Proof) -> Record {
        let data = RData::CNAME(CNAME(name(target)));
        let mut record = Record::from_rdata(name(owner), 60, data);
        record.proof = proof;
        record
    }

    fn address(owner: &str, proof: Proof) -> Record {
        let mut record = Record::from_rdata(name(owner), 60, RData::A(A::new(192, 0, 2, 1)));
        record.proof = proof;
        record
    }

    fn read_a(records: &[Record]) -> Result<Found, NotFound> {
        read(records, &name("mx.example."), RecordType::A, true)
    }

    #[test]
    fn an_answer_is_as_secure_as_its_least_secure_record() {
        let found = read_a(&[address("mx.example.", Proof::Secure)]).unwrap();
        assert!(found.secure && found.alias.is_none());
        let chain = |proof| {
            [alias("mx.example.", "b.example.", Proof::Secure), address("b.example.", proof)]
        };
        let found = read_a(&chain(Proof::Secure)).unwrap();
        assert!(found.secure && found.alias_secure);
        assert_eq!(found.alias.as_deref(), Some("b.example"));
        let found = read_a(&chain(Proof::Insecure)).unwrap();
        assert!(!found.secure && found.alias_secure);
        assert_eq!(read_a(&chain(Proof::Bogus)), Err(NotFound::Bogus));
        assert_eq!(read_a(&chain(Proof::Indeterminate)), Err(NotFound::Bogus));
    }

    #[test]
    fn an_alias_that_leads_nowhere_denies_nothing() {
        let alone = [alias("mx.example.", "b.example.", Proof::Secure)];
        assert_eq!(read_a(&alone), Err(NotFound::Bogus));
        let plain = read(&alone, &name("mx.example."), RecordType::A, false);
        assert_eq!(plain, Err(NotFound::NoData));
    }

    #[test]
    fn two_families_lead_to_the_same_name() {
        let chain = |target, proof| {
            read_a(&[alias("mx.example.", target, Proof::Secure), address(target, proof)]).unwrap()
        };
        let found = |other| chain("b.example.", Proof::Secure).and(other);
        assert!(found(chain("b.example.", Proof::Secure)).unwrap().secure);
        assert_eq!(found(chain("c.example.", Proof::Secure)), Err(NotFound::Bogus));
        let direct = read_a(&[address("mx.example.", Proof::Secure)]).unwrap();
        assert_eq!(found(direct), Err(NotFound::Bogus));
        // The aliases of an unsigned zone are anybody's; the first of them is not.
        let mixed = found(chain("c.example.", Proof::Insecure)).unwrap();
        assert!(!mixed.secure && mixed.alias_secure && mixed.alias.is_some());
    }

    #[test]
    fn records_of_other_names_count_for_nothing() {
        let answer = [address("other.example.", Proof::Secure)];
        assert_eq!(read_a(&answer), Err(NotFound::Bogus), "no proof that there is none");
        let plain = read(&answer, &name("mx.example."), RecordType::A, false);
        assert_eq!(plain, Err(NotFound::NoData));
    }

    #[test]
    fn a_record_without_data_is_no_answer() {
        let owner = "_25._tcp.mx.example.";
        for kind in [RecordType::TLSA, RecordType::CNAME] {
            let mut empty = Record::update0(name(owner), 60, kind);
            empty.proof = Proof::Secure;
            let found = |validated| {
                read(std::slice::from_ref(&empty), &name(owner), RecordType::TLSA, validated)
            };
            assert_eq!(found(true), Err(NotFound::Bogus));
            assert_eq!(found(false), Err(NotFound::Failed));
        }
        let text = |data| Record::from_rdata(name(owner), 60, data);
        let policy = RData::TXT(TXT::new(vec!["v=STSv1; id=1;".to_owned()]));
        let texts = [text(RData::Update0(RecordType::TXT)), text(policy)];
        assert_eq!(read(&texts, &name(owner), RecordType::TXT, false).unwrap().data.len(), 2);
    }

    #[test]
    fn chains_of_aliases_end() {
        let around = [
            alias("mx.example.", "b.example.", Proof::Secure),
            alias("b.example.", "mx.example.", Proof::Secure),
        ];
        assert_eq!(read_a(&around), Err(NotFound::Failed));
    }

    #[test]
    fn signatures_are_asked_for_whatever_resolv_conf_says() {
        let mut system = ResolverOpts::default();
        system.edns0 = false;
        let options = validating_options(system);
        assert!(options.edns0 && options.validate);
        assert_eq!(options.use_hosts_file, ResolveHosts::Never);
    }

    #[tokio::test]
    async fn the_resolvers_of_the_system_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        for dnssec in [true, false] {
            std::fs::write(&file, "").unwrap();
            let dns = Dns { resolvers: Resolvers::System, dnssec, trust_anchor: None };
            let names = Names::with_system(&dns, &file).unwrap();
            assert!(names.now().servers.is_empty(), "as at boot");
            let write = |text: &str| std::fs::write(&file, text).unwrap();
            let asked = || {
                let now = names.now();
                assert_eq!(now.validating.is_some(), dnssec);
                let patience = now.plain.options().timeout.as_secs();
                (
                    now.servers.iter().map(|server| server.ip().to_string()).collect::<Vec<_>>(),
                    patience,
                )
            };
            write("nameserver 192.0.2.1\n");
            assert!(names.follow());
            assert_eq!(asked(), (vec!["192.0.2.1".to_owned()], 5));
            assert!(!names.follow(), "it is the same");
            write("nameserver 2001:db8::1\noptions timeout:3\n");
            let before = names.now();
            assert!(names.follow());
            let after = (vec!["2001:db8::1".to_owned()], 3);
            assert_eq!(asked(), after);
            assert_eq!(before.servers.len(), 1, "what is under way ends with these");
            for useless in ["", "options timeout:7\n", "nameserver ns.example\n"] {
                write(useless);
                assert!(!names.follow(), "{useless}");
                assert_eq!(asked(), after, "{useless}");
            }
            std::fs::remove_file(&file).unwrap();
            assert!(!names.follow());
            assert_eq!(asked(), after);
            write("nameserver 192.0.2.2\nnameserver 192.0.2.3\n");
            assert!(names.follow());
            assert_eq!(asked().0, ["192.0.2.2", "192.0.2.3"]);
        }
    }

    #[test]
    fn resolvers_of_the_configuration_are_not_those_of_the_system() {
        let servers = vec!["192.0.2.1:5353".parse().unwrap()];
        let resolvers = Resolvers::Servers(servers);
        let dns = Dns { resolvers, dnssec: false, trust_anchor: None };
        assert!(!Names::with_system(&dns, Path::new("/dev/null")).unwrap().follow());
    }

    #[test]
    fn nothing_is_secure_where_nothing_is_validated() {
        let answer = [address("mx.example.", Proof::Indeterminate)];
        let found = read(&answer, &name("mx.example."), RecordType::A, false).unwrap();
        assert!(!found.secure);
    }
}
