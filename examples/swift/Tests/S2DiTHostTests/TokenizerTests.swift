import Foundation
import XCTest

@testable import S2DiTHost

/// Tokenizers, against what the library `tokenizers` makes: the vectors of `examples/reference/swift_tokenizers.py`.
final class TokenizerTests: XCTestCase {
    func testIdsAreThoseOfTheLibrary() throws {
        var count = 0
        for about in try vector("tokenizers").array! {
            let tokenizer = try Tokenizer(try JSON(about["tokenizer"]!.bytes!))
            for example in about["cases"]!.array! {
                let text = example["text"]!.text!
                let ids = { (name: String) in example[name]!.array!.map { $0.integer! } }
                XCTAssertEqual(try tokenizer.encode(text), ids("ids"), "\(about["name"]!): \(text.debugDescription)")
                let (cut, leftOut) = try tokenizer.encoded(text, most: 12)
                XCTAssertEqual(cut, ids("cut"), "\(about["name"]!): \(text.debugDescription)")
                XCTAssertEqual(leftOut, ids("ids").count - cut.count)
                count += 1
            }
        }
        XCTAssertEqual(count, 56)
    }

    /// The prompts of the goldens of pipelines, cleaned and tokenized as transformers does.
    func testPromptsAreThoseOfTransformers() throws {
        let goldens = repository.appendingPathComponent("tests/goldens")
        let file = goldens.appendingPathComponent("tokenizers.json")
        guard FileManager.default.fileExists(atPath: file.path) else { throw XCTSkip("\(file.path): there are no goldens") }
        let golden = try JSON(file: file)
        let tokenizer = try Tokenizer(file: goldens.appendingPathComponent("pipeline_wan/pipeline/tokenizer/tokenizer.json"))
        for name in ["t5", "wan"] {
            for example in golden["cases"]!.array! {
                let prompt = example["prompt"]!.text!
                let cleaned = cleanedAsWan(prompt)
                XCTAssertEqual(cleaned.scalarArray, example["cleaned"]!.text!.scalarArray, prompt.debugDescription)
                let expected = example[name]!
                let ids = try tokenizer.encode(name == "wan" ? cleaned : prompt, most: expected["length"]!.integer!)
                XCTAssertEqual(ids, expected["ids"]!.array!.map { $0.integer! }, "\(name): \(prompt.debugDescription)")
            }
        }
    }

    func testAPromptAsWansPipelinesCleanIt() {
        for (prompt, cleaned) in [
            ("", ""), ("  a\tcat \n\n sat ", "a cat sat"), ("caf&eacute; &amp;amp; bar", "café & bar"), ("this&not that", "this¬ that"),
            ("<b>&lt;i&gt;</b>", "<b><i></b>"), ("“curled” ‘quotes’", "\"curled\" 'quotes'"), ("oﬃce ＬＯＵＤ　ﾀｰﾝ", "office LOUD ターン"), ("e\u{301}", "é"),
            ("\u{1b}[31mred\u{1b}[0m \u{7}bell", "red bell"), ("tail \u{1b}[", "tail ["), ("&#128049; &#x1F408; 🐈", "🐱 🐈 🐈"), ("&amp;lt;", "<"),
        ] {
            XCTAssertEqual(cleanedAsWan(prompt).scalarArray, cleaned.scalarArray, prompt.debugDescription)
        }
    }

    func testWhatATokenizerLacksIsNamed() throws {
        func told(_ text: String) -> String {
            do {
                _ = try Tokenizer(JSON(Array(text.utf8)))
                return "nothing"
            } catch { return "\(error)" }
        }
        for (text, part) in [
            ("{", "not JSON: at byte 1: found the end"),
            ("{\"model\": nul}", "not JSON"),
            ("{}", "field `model`: missing"),
            ("{\"model\": {\"type\": \"WordPiece\"}}", "found WordPiece, expected BPE or Unigram"),
            ("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}", "found \"a b\", expected two tokens"),
            ("{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0]], \"unk_id\": 1}}", "found 1, expected one of 1 pieces"),
            ("{\"normalizer\": {\"type\": \"BertNormalizer\"}}", "found BertNormalizer"),
            ("{\"pre_tokenizer\": {\"type\": \"Digits\"}}", "found Digits"),
            ("{\"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"AAAA\"}}", "expected a table"),
        ] {
            XCTAssertTrue(told(text).contains(part), told(text))
        }
    }

    func testJSONIsReadAsItIs() throws {
        let json = try JSON(Array(#" {"a": [1, -2.5e3, true, null, "x\n\u00e9\ud83d\udc31"], "é": 1, "é": 2} "#.utf8))
        XCTAssertEqual(json["a"], .array([.number(1), .number(-2500), .bool(true), .null, .string("x\né🐱")]))
        // The two keys are equal as strings of Swift.
        XCTAssertEqual(json.object?.count, 3)
    }
}
