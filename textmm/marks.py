"""The mark of pictures that a generator drew: IPTC's DigitalSourceType, in XMP, where other programs look for it."""

from __future__ import annotations

import io

from PIL import Image, PngImagePlugin

from textmm.transforms import ImageTooLarge, ImageUnreadable, open_image

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
DRAWN = SOURCE_TYPES + "trainedAlgorithmicMedia"
"""Made by a model from words (IPTC Photo Metadata, Digital Source Type)."""
PARTLY_DRAWN = SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" Iptc4xmpExt:DigitalSourceType="{source}" xmp:CreatorTool="{tool}"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
XMP_CHUNK = "XML:com.adobe.xmp"
"""Of PNG"""


def marked_png(picture: Image.Image, *, tool: str) -> bytes:
    """PNG bytes of a picture that carries the mark; `tool` is what drew it."""
    packet = PACKET.format(source=DRAWN, tool=tool)
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(XMP_CHUNK, packet)
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=chunks)
    return out.getvalue()


def is_generated(data: bytes) -> bool:
    """Whether the bytes of a picture (JPEG, PNG, WebP) carry the mark; False for what cannot be read."""
    try:
        info = open_image(data).info
    except (ImageUnreadable, ImageTooLarge):
        return False
    packet = info.get("xmp") or info.get(XMP_CHUNK) or b""
    said = packet if isinstance(packet, bytes) else str(packet).encode()
    return DRAWN.encode() in said or PARTLY_DRAWN.encode() in said
