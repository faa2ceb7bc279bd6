//! DER as a tree that tests change and write again.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Branch(u8, Vec<Self>),
    Leaf(u8, Vec<u8>),
}

impl Node {
    pub fn parse(der: &[u8]) -> Self {
        let (node, rest) = Self::first(der);
        assert!(rest.is_empty());
        node
    }

    pub fn oid(dotted: &str) -> Self {
        let oid = dotted.parse::<const_oid::ObjectIdentifier>().unwrap();
        Self::Leaf(6, oid.as_bytes().to_vec())
    }

    fn first(der: &[u8]) -> (Self, &[u8]) {
        let first = usize::from(der[1]);
        let (header, length) = if first < 0x80 {
            (2, first)
        } else {
            let count = first & 0x7f;
            let octets = &der[2..2 + count];
            (2 + count, octets.iter().fold(0, |sum, octet| sum * 256 + usize::from(*octet)))
        };
        let (whole, rest) = der.split_at(header + length);
        let mut body = &whole[header..];
        if der[0] & 0x20 == 0 {
            return (Self::Leaf(der[0], body.to_vec()), rest);
        }
        let mut children = Vec::new();
        while !body.is_empty() {
            let (child, more) = Self::first(body);
            children.push(child);
            body = more;
        }
        (Self::Branch(der[0], children), rest)
    }

    pub fn write(&self) -> Vec<u8> {
        let (tag, body) = match self {
            Self::Branch(tag, children) => (*tag, children.iter().flat_map(Self::write).collect()),
            Self::Leaf(tag, body) => (*tag, body.clone()),
        };
        let mut out = vec![tag];
        if body.len() < 0x80 {
            out.push(body.len() as u8);
        } else {
            out.push(0x84);
            out.extend((body.len() as u32).to_be_bytes());
            let zeros = out[2..].iter().take_while(|octet| **octet == 0).count();
            out.drain(2..2 + zeros);
            out[1] -= zeros as u8;
        }
        out.extend(body);
        out
    }

    pub fn children(&mut self) -> &mut Vec<Self> {
        match self {
            Self::Branch(_, children) => children,
            Self::Leaf(..) => panic!("a leaf has no children"),
        }
    }

    pub fn at(&mut self, path: &[usize]) -> &mut Self {
        path.iter().fold(self, |node, index| &mut node.children()[*index])
    }

    /// Whether the first member is this object identifier.
    pub fn is(&self, dotted: &str) -> bool {
        matches!(self, Self::Branch(_, children) if children.first() == Some(&Self::oid(dotted)))
    }

    pub fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Leaf(_, bytes) => bytes,
            Self::Branch(..) => panic!("a branch has no bytes of its own"),
        }
    }
}
