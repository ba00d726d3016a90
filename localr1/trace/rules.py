"""How a step of a thought begins, and which kind of step that makes it: one table, to be read and mended by a person.

A rule is tried on the opening of a step: its first WINDOW characters, up to the end of the line. Before it may stand words that say
nothing of the kind (LEAD: "Okay, so", "But", "嗯，") and marks of lists and emphasis. Case does not matter. Kinds are tried in
the order of the table, so that "Wait, let me check" is a check and "Wait, I need ..." a turn back.

`where` says at which openings a rule is tried:

    anywhere   at any sentence: in the middle of a paragraph it begins a step of its own
    restated   at any sentence of a restatement, and at the beginning of a paragraph or line
    start      at the beginning of a paragraph or line
    head       ... while nothing but restatements has come
    first      ... at the very first step
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["restate", "plan", "work", "check", "backtrack", "conclude"]
Where = Literal["anywhere", "restated", "start", "head", "first"]

WINDOW = 64  # characters: the longest opener with its lead fits, and a step shows about 16 tokens after it begins

LEAD = {
    "en": r"(?:(?:okay|ok|alright|all right|so|hmm+|well|now|then|but|and|yes|yeah|right|good|great|perfect|oh|ah|also|wait|just|(?:let me|let's) see(?=[.,]))\b[,.!:…]* *)*",
    "zh": r"(?:(?:嗯|好的|好|那么|那|所以|然后|但是|但|可是|而且|哦|啊|因此|现在|等等|等一下)[，,。.…、：]* *)*",
}


class Rule(NamedTuple):
    """`openers`: regular expressions, one a line."""

    kind: Kind
    language: Literal["en", "zh"]
    where: Where
    openers: str

    @property
    def pattern(self) -> str:
        """Any of the openers, behind any lead."""
        return f"{LEAD[self.language]}(?:{'|'.join(line.strip() for line in self.openers.strip().splitlines())})"


RULES = (
    Rule("restate", "en", "first", r"""
        (i|we) (have|need|want|must|am|are|was|got)\b
        (i|we)'(m|re|ve)\b
        there('s| is| are| was| were)\b
        """),
    Rule("restate", "en", "head", r"""
        (the|this|my|our) (user|person|problem|question|task|puzzle|prompt|message|statement|equation)\b
        (they|he|she|it) (say|want|ask|mention|provide|give|need)s?\b
        (given|we're given|we are given|what's asked|it's given)\b
        """),
    Rule("restate", "zh", "first", r"""
        (我|我们)(需要|要|想|有)
        现在有|有一|假设
        """),
    Rule("restate", "zh", "head", r"""
        用户|题目|问题|题中|题意|已知|(这|那)(个|道)?(题|问题)|他(想|问|说|要)|要求的?是
        """),
    Rule("check", "en", "anywhere", r"""
        (let me|let's|i('ll| will| should| need to| can| could| want to| have to| must|'d like to)|we (can|should)) ((just|quickly|also|first|at least|briefly) )*(double|re|cross)?[- ]?(check|verify|confirm|validate|test|recount|make sure|be sure|prove)
        ((just )?to )(double[- ]?check|verify|confirm|validate|be (sure|safe|certain|thorough)|make sure|check)\b
        (counting|adding|computing|reading|going over|going through) ([^.,\n]{1,12} )?(again|once more)\b
        (double|re|cross)?-?(check|checking|verifying|verification|testing)\b
        (plug|plugging|put|putting|substitute|substituting|insert|inserting) ([^.\n]{1,20} )?back\b
        (that|this|it|which|everything|the (numbers?|results?|answers?)) ((all|also|indeed|both) )*(match(es)?|agrees?|checks out|adds? up|is consistent|makes? sense|(seems|looks|is|sounds) (right|correct|reasonable|plausible))\b
        that's (right|correct|consistent|reasonable|plausible)\b
        (is|does|do|did|are|am) (that|this|it|these|they|i) ((really|actually|still|even|all) )?(make sense|right|correct|work|match|fit|hold|add up|satisfy|reasonable|possible|doable|plausible|realistic|consistent|valid|true|sure)\b
        (as )?(a )?(quick )?(sanity|second|final) check\b
        a quick (check|test)\b
        """),
    Rule("check", "zh", "anywhere", r"""
        (让我们?|我们?|我来)?(应该|需要|可以|最好)?(再|来|先|重新|仔细|最后|快速|回头)*(检查|验证|验算|核对|确认|检验|测试)
        代(入|回)[^。\n]{0,12}(检验|验证|检查|看看)
        这样?(对|合理|正确|成立)吗
        """),
    Rule("backtrack", "en", "anywhere", r"""
        wait\b(?! (for|until|till|times?)\b)
        (hold|hang) on\b
        oops\b|whoops\b|scratch that|never ?mind|on second thought|then again\b|my (mistake|bad)\b|not (quite|so fast)\b|nope\b
        no([,.!—]| [-–—])
        actually\b|alternatively\b
        (or|but|hmm+,?) (maybe|perhaps|actually|wait|could it|what if|is it|no\b|not\b|hold on)
        but (this|that|it|then|here) (would|could|might|can't|cannot|won't|isn't|doesn't|still)\b
        although(\.|…|,)
        but (is|are|does|do|did|was|were|isn't|aren't|doesn't|didn't|shouldn't|what (if|about)|how about)\b
        hmm+[,.…]* (but|that|this|maybe|perhaps|i (may|might|think i|must|should have|missed|forgot)|is (that|this|it)|did i|does|what if)\b
        (that|this|it)('s| is| was|'d be| would be| seems| looks| must be| sounds) ((still|all|a bit|a little|clearly|obviously) )*(not (quite |really |entirely )?(right|correct|true|possible|what)|too |wrong|off|incorrect|impossible|strange|weird|a mistake)\b
        (that|this|it) (can't|cannot|can not|couldn't|doesn't|does not|didn't) ((quite|really) )?(be|work|make|fit|match|add|seem|look|sound)
        (that|this|it) isn't ((quite|really) )?(right|correct|true|possible|what)
        i('ve| have| must have| might have| may have| think i)? ?(made an? (mistake|error|slip)|mis(read|counted|calculated|took|understood)|was wrong|messed up|forgot|overlooked|missed|confused|went wrong)
        (did|have) i (mis|make an? |forget|miss|read|get|overlook)
        (maybe|perhaps) (i|we|there's|there is|it's|it is)('m|'ve| was| am| made| mis| should (try|consider|re)| could try| overlook| (a|an)(other)? )
        (let me|let's|i (should|need to|have to|must|could)|i'll) (re-?(think|consider|read|do|visit|start|calculate|compute|examine|evaluate|phrase)|start (over|again)|try (a different|another|something else|again|it differently)|go back|back up|think again|take a step back|look (at (this|it) )?(again|differently|more closely)|approach (this|it) differently|correct)
        (another|a different|the other) (way|approach|possibility|option|idea|method|thought|angle|interpretation)\b
        """),
    Rule("backtrack", "zh", "anywhere", r"""
        等等|等一下|等下|稍等|慢着|且慢
        不对|不，|不是这样|不行|错了|糟糕
        其实|实际上|或者|还有一种|另一种|另外一种|换(个|一种|句话)|反过来
        (让我们?|我们?)?(再|重新)(考虑|思考|想|看|算|来|读|审|梳理)
        我?(是不是|可能|好像|刚才|似乎)(搞|算|看|弄|想|理解)?(错|漏|忽略|误)
        """),
    Rule("backtrack", "zh", "start", r"""
        不过|但是，?(如果|这)|可是|难道
        """),
    Rule("conclude", "en", "anywhere", r"""
        final answer\b
        ((therefore|thus|hence),? )?(the|my|our) ((final|correct|overall) )?answer (is|should|would|must|comes|has)\b
        ((therefore|thus|hence),? )?(the|our) (final|overall) (result|solution|count|value) (is|are|should|would|must|comes)\b
        (the )?(final )?(answer|result|solution)\*{0,2} ?[:：]
        (so|therefore|thus|hence),? (the|our) ((final|correct|total|overall) )?(answer|total|result|solution|probability|number of [^.\n]{1,24}|sum|value of [^.\n]{1,12}) (is|are|must be|comes)\b
        in (conclusion|summary|short)\b|to (sum up|summari[sz]e|conclude)\b|putting (it|this|everything) (all )?together
        i('m| am) ((now|pretty|fairly|quite|really) )?(confident|certain|convinced)\b
        [^.\n]{0,50}\\boxed\{ *[^}\s]
        """),
    Rule("conclude", "en", "start", r"""
        (therefore|thus|hence|consequently|overall|in the end)\b
        so,? -?\d[\d.,]* ?(and|of|is|are|[-+x×*/÷])
        so,? there (is|are|were|must be|will be) (exactly |only |at (most|least) )?(\d|no|one|two|three|four|five|six|seven|eight|nine|ten)\b
        """),
    Rule("conclude", "zh", "anywhere", r"""
        (最终|最后|正确)?的?(答案|结果)(就|应该|应)?(是|为|：)
        最终的|综上|总之|总的来说|总而言之|归纳
        (所以|因此)，?(最终|最后|一共|总共|总数|答案|结果)
        """),
    Rule("conclude", "zh", "start", r"""
        因此|由此可见|故而?
        """),
    Rule("plan", "en", "restated", r"""
        (first|firstly|first off|first of all|next|finally|after that|then|maybe|perhaps|for this|instead),? (i|we|let me|let's|it's best|it would)\b
        (let me|let's) ((just|first|now|also) )*(start|begin|try|break|see(?![.,])|think|consider|figure|plan|outline|organi[sz]e|approach|recall|remember|go (through|over|step)|work (through|out|backwards)|structure|use|look|tackle|imagine|set|list|enumerate|count|draw)\b
        """),
    Rule("plan", "en", "start", r"""
        to (start|begin)\b|step by step\b
        (i|we)('ll|'d| will| should| need| have to| can| could| want| might| must)\b
        (my|the|a) ((first|next|main|key|simplest|best|easiest|obvious|natural|good) )*(plan|approach|idea|strategy|goal|step|key|way|method|trick|thing to do)\b
        i think (i|we)('ll| should| can| could| need| will| might)\b
        (in )?(the|my) (tone|answer|reply|response|explanation|structure|message)( should| needs| must|,? (i|let me))\b
        this calls for\b
        one (way|approach|option|method|idea|possibility)\b
        to (solve|find|answer|do|get|determine|figure|tackle|approach|compute|calculate|work|prove|show|explain|decide|write)\b
        (how|where|what) (do|can|should|would|could|might) (i|we)\b
        """),
    Rule("plan", "zh", "restated", r"""
        首先|第一步|让?(我|我们)(先|来)
        """),
    Rule("plan", "zh", "start", r"""
        接下来|下一步|其次|最好|思路
        (让)?(我|我们)(还|先|就|也|再)?(需要|应该|可以|得|要|会|想|打算|先|来|试着|尝试)
        (要|为了)(解决|求|回答|证明|计算|找)|可以先|先(来|把|看|从|算)|怎么
        """),
    Rule("backtrack", "en", "anywhere", r"""
        hmm+\b
        """),  # whatever else was not found above
    Rule("backtrack", "en", "start", r"""
        maybe\b|perhaps\b
        """),
)  # fmt: skip
