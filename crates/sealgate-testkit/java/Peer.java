// The BouncyCastle peer of the interoperability matrix: signs, verifies, encrypts and decrypts CMS files as asked on
// standard input, one request a line with tabs between its words; answers "ok" or "no REASON", one line each.

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.FileReader;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.CertPathBuilder;
import java.security.cert.CertStore;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.MGF1ParameterSpec;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import javax.crypto.spec.OAEPParameterSpec;
import javax.crypto.spec.PSource;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaCertStore;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.PEMKeyPair;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.operator.OutputAEADEncryptor;
import org.bouncycastle.operator.OutputEncryptor;
import org.bouncycastle.operator.jcajce.JcaAlgorithmParametersConverter;

public class Peer {
    public static void main(String[] arguments) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = requests.readLine()) != null; ) {
            String answer;
            try {
                answer = answer(line.split("\t"));
            } catch (Throwable problem) {
                answer = "no " + problem.toString().replaceAll("\\s+", " ");
            }
            System.out.println(answer);
        }
    }

    static String answer(String[] words) throws Exception {
        switch (words[0]) {
            case "sign": // scheme form key certificate content signature
                write(words[6], sign(words[1], words[2], words[3], words[4], read(words[5])));
                return "ok";
            case "verify": // signature content root
                return verify(read(words[1]), read(words[2]), certificate(words[3]));
            case "encrypt": // transport content-algorithm form certificate plain sealed
                write(words[6], encrypt(words[1], words[2], words[3], certificate(words[4]), read(words[5])));
                return "ok";
            case "decrypt": // key sealed plain
                write(words[3], decrypt(key(words[1]), read(words[2])));
                return "ok";
            default:
                return "no such request";
        }
    }

    static byte[] sign(String scheme, String form, String keyFile, String certificateFile, byte[] content)
            throws Exception {
        X509Certificate certificate = certificate(certificateFile);
        SignerInfoGenerator signer =
                new JcaSimpleSignerInfoGeneratorBuilder().setProvider("BC").build(scheme, key(keyFile), certificate);
        JcaCertStore certificates = new JcaCertStore(List.of(certificate));
        if (form.equals("ber")) {
            CMSSignedDataStreamGenerator generator = new CMSSignedDataStreamGenerator();
            generator.addSignerInfoGenerator(signer);
            generator.addCertificates(certificates);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            try (OutputStream stream = generator.open(out, false)) {
                stream.write(content);
            }
            return out.toByteArray();
        }
        CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
        generator.addSignerInfoGenerator(signer);
        generator.addCertificates(certificates);
        return generator.generate(new CMSProcessableByteArray(content), false).toASN1Structure().getEncoded("DER");
    }

    static String verify(byte[] signature, byte[] content, X509Certificate root) throws Exception {
        CMSSignedData signed = new CMSSignedData(new CMSProcessableByteArray(content), signature);
        Collection<SignerInformation> signers = signed.getSignerInfos().getSigners();
        if (signers.isEmpty()) {
            return "no signer";
        }
        List<X509Certificate> known = new ArrayList<>();
        for (X509CertificateHolder holder : signed.getCertificates().getMatches(null)) {
            known.add(new JcaX509CertificateConverter().setProvider("BC").getCertificate(holder));
        }
        for (SignerInformation signer : signers) {
            Collection<X509CertificateHolder> matching = signed.getCertificates().getMatches(signer.getSID());
            if (matching.isEmpty()) {
                return "no certificate of the signer";
            }
            X509CertificateHolder holder = matching.iterator().next();
            if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider("BC").build(holder))) {
                return "no valid signature";
            }
            X509CertSelector target = new X509CertSelector();
            target.setCertificate(new JcaX509CertificateConverter().setProvider("BC").getCertificate(holder));
            PKIXBuilderParameters path = new PKIXBuilderParameters(Set.of(new TrustAnchor(root, null)), target);
            path.setRevocationEnabled(false);
            path.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(known)));
            CertPathBuilder.getInstance("PKIX", "BC").build(path);
        }
        return "ok";
    }

    static byte[] encrypt(String transport, String algorithm, String form, X509Certificate to, byte[] plain)
            throws Exception {
        RecipientInfoGenerator recipient = recipient(transport, to);
        ASN1ObjectIdentifier cipher = algorithm.equals("gcm") ? CMSAlgorithm.AES256_GCM : CMSAlgorithm.AES256_CBC;
        OutputEncryptor encryptor = new JceCMSContentEncryptorBuilder(cipher).setProvider("BC").build();
        CMSProcessableByteArray content = new CMSProcessableByteArray(plain);
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        if (algorithm.equals("gcm")) {
            CMSAuthEnvelopedDataGenerator generator = new CMSAuthEnvelopedDataGenerator();
            generator.addRecipientInfoGenerator(recipient);
            // There is no stream generator for it in 1.72; its own encoding is BER with indefinite lengths.
            return generator.generate(content, (OutputAEADEncryptor) encryptor)
                    .toASN1Structure()
                    .getEncoded(form.equals("ber") ? "BER" : "DER");
        }
        if (form.equals("ber")) {
            CMSEnvelopedDataStreamGenerator generator = new CMSEnvelopedDataStreamGenerator();
            generator.addRecipientInfoGenerator(recipient);
            try (OutputStream stream = generator.open(out, encryptor)) {
                stream.write(plain);
            }
            return out.toByteArray();
        }
        CMSEnvelopedDataGenerator generator = new CMSEnvelopedDataGenerator();
        generator.addRecipientInfoGenerator(recipient);
        return generator.generate(content, encryptor).toASN1Structure().getEncoded("DER");
    }

    static RecipientInfoGenerator recipient(String transport, X509Certificate to) throws Exception {
        switch (transport) {
            case "rsa-pkcs1":
                return new JceKeyTransRecipientInfoGenerator(to).setProvider("BC");
            case "rsa-oaep":
                OAEPParameterSpec oaep = new OAEPParameterSpec(
                        "SHA-256", "MGF1", new MGF1ParameterSpec("SHA-256"), PSource.PSpecified.DEFAULT);
                return new JceKeyTransRecipientInfoGenerator(
                                to,
                                new JcaAlgorithmParametersConverter()
                                        .getAlgorithmIdentifier(PKCSObjectIdentifiers.id_RSAES_OAEP, oaep))
                        .setProvider("BC");
            default:
                KeyPairGenerator generator = KeyPairGenerator.getInstance("EC", "BC");
                generator.initialize(new ECGenParameterSpec("P-256"));
                KeyPair ephemeral = generator.generateKeyPair();
                return new JceKeyAgreeRecipientInfoGenerator(
                                CMSAlgorithm.ECDH_SHA256KDF,
                                ephemeral.getPrivate(),
                                ephemeral.getPublic(),
                                CMSAlgorithm.AES256_WRAP)
                        .addRecipient(to)
                        .setProvider("BC");
        }
    }

    static byte[] decrypt(PrivateKey key, byte[] sealed) throws Exception {
        boolean rsa = key.getAlgorithm().equals("RSA");
        Exception last = new Exception("no recipient");
        RecipientInformationStore recipients;
        boolean authenticated;
        try {
            recipients = new CMSEnvelopedData(sealed).getRecipientInfos();
            authenticated = false;
        } catch (Exception other) {
            recipients = new CMSAuthEnvelopedData(sealed).getRecipientInfos();
            authenticated = true;
        }
        for (RecipientInformation recipient : recipients.getRecipients()) {
            try {
                Recipient mine;
                if (authenticated) {
                    mine = rsa
                            ? new JceKeyTransAuthEnvelopedRecipient(key).setProvider("BC")
                            : new JceKeyAgreeEnvelopedRecipient(key).setProvider("BC");
                } else {
                    mine = rsa
                            ? new JceKeyTransEnvelopedRecipient(key).setProvider("BC")
                            : new JceKeyAgreeEnvelopedRecipient(key).setProvider("BC");
                }
                return recipient.getContent(mine);
            } catch (Exception problem) {
                last = problem;
            }
        }
        throw last;
    }

    static PrivateKey key(String file) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(file))) {
            Object object = parser.readObject();
            PrivateKeyInfo info =
                    object instanceof PEMKeyPair ? ((PEMKeyPair) object).getPrivateKeyInfo() : (PrivateKeyInfo) object;
            return new JcaPEMKeyConverter().setProvider("BC").getPrivateKey(info);
        }
    }

    static X509Certificate certificate(String file) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(file))) {
            X509CertificateHolder holder = (X509CertificateHolder) parser.readObject();
            return new JcaX509CertificateConverter().setProvider("BC").getCertificate(holder);
        }
    }

    static byte[] read(String file) throws Exception {
        return Files.readAllBytes(Path.of(file));
    }

    static void write(String file, byte[] bytes) throws Exception {
        Files.write(Path.of(file), bytes);
    }
}
