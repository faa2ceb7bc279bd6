use super::*;
use crate::config::Resolvers;

fn router() -> Router {
    let dns = Dns {
        resolvers: Resolvers::Servers(vec!["127.0.0.1:9".parse().unwrap()]),
        dnssec: true,
        trust_anchor: None,
    };
    Router::new(&dns, None, "gate.nec.example").unwrap()
}

fn hosts(exchangers: &[(u16, &str)]) -> Result<Vec<String>, String> {
    let exchangers: Vec<(u16, String)> =
        exchangers.iter().map(|(preference, host)| (*preference, (*host).to_owned())).collect();
    router().hosts_of("abc.example", &exchangers).map_err(|refusal| refusal.to_string())
}

#[tokio::test]
async fn exchangers_stop_before_ourselves() {
    let three = [(5, "a"), (10, "gate.nec.example"), (10, "b"), (20, "c")];
    assert_eq!(hosts(&three), Ok(vec!["a".to_owned()]));
    let refusal = hosts(&three[1..]).unwrap_err();
    assert!(refusal.starts_with("554 5.4.6 "), "{refusal}");
    assert_eq!(hosts(&[(2, "b"), (1, "a")]), Ok(vec!["a".to_owned(), "b".to_owned()]));
}

#[tokio::test]
async fn a_null_mx_is_refused_for_good() {
    let refusal = hosts(&[(0, ".")]).unwrap_err();
    assert!(refusal.starts_with("556 5.1.10 "), "{refusal}");
}

#[tokio::test]
async fn literals_and_fixed_servers_need_no_look_up() {
    let router = router();
    let demand = Demand::default();
    for (text, host) in [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1")] {
        let hop = router.hop(&NextHop::Mx, &Domain::parse(text).unwrap(), demand).await.unwrap();
        assert_eq!(hop.targets[0].host, host);
        let reach = router.reach(&hop.targets[0]).await.unwrap();
        assert_eq!(reach.addresses, [SocketAddr::new(host.parse().unwrap(), 25)]);
    }
    let server: Server = "lmtp://127.0.0.1:24".parse().unwrap();
    let domain = Domain::parse("abc.example").unwrap();
    let hop = router.hop(&NextHop::Fixed(server), &domain, demand).await.unwrap();
    assert!(hop.lmtp);
    let guard = Guard::default();
    let target = Target { host: "127.0.0.1".to_owned(), port: 24, absolute: false, guard };
    assert_eq!(hop.targets, [target]);
}

#[test]
fn neither_family_uses_up_the_attempts_of_the_other() {
    let addresses: Vec<IpAddr> =
        ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "192.0.2.1"]
            .map(|text| text.parse().unwrap())
            .to_vec();
    let order: Vec<String> =
        in_order(&addresses, 25).iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(order, ["192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8::3"]);
}

#[test]
fn tlsa_records_are_looked_for_where_dnssec_reaches() {
    let found = |secure, alias: Option<&str>, alias_secure| Found {
        secure,
        alias: alias.map(str::to_owned),
        alias_secure,
        ..Found::default()
    };
    for (found, bases) in [
        (found(true, None, false), &["mx"][..]),
        (found(false, None, false), &[]),
        (found(true, Some("b"), true), &["b", "mx"]),
        (found(false, Some("b"), true), &["mx"]),
        (found(false, Some("b"), false), &[]),
    ] {
        assert_eq!(tlsa_bases("mx", &found), bases, "{found:?}");
    }
}

#[test]
fn the_guard_is_what_message_and_domain_demand() {
    let text = "version: STSv1\nmode: enforce\nmx: mx.b.example\nmax_age: 100\n";
    let enforce = Policy::parse(text).unwrap();
    let testing = Policy::parse(&text.replace("enforce", "testing")).unwrap();
    let of = |demand, secure, policy| guard(demand, "b.example", "mx.b.example", secure, policy);
    let none = Demand::default();
    assert_eq!(of(none, false, None), Guard::default());
    assert_eq!(of(none, false, Some(&testing)).sts, Sts::Tested { listed: true });
    assert_eq!(of(none, false, Some(&enforce)).sts, Sts::Listed);
    let other = guard(none, "b.example", "mx.c.example", false, Some(&enforce));
    assert_eq!(other.sts, Sts::Unlisted);
    let other = guard(none, "b.example", "mx.c.example", false, Some(&testing));
    assert_eq!(other.sts, Sts::Tested { listed: false });
    let secure = of(none, true, None);
    assert!(secure.dane && secure.domain.as_deref() == Some("b.example"));
    let optional = of(Demand { is_optional: true, ..none }, true, None);
    assert!(!optional.dane && optional.dnssec);
    let required = of(Demand { requiretls: true, ..none }, false, None);
    assert!(required.requiretls && required.tls == LinkTls::Verify);
}
